package test

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/schema"
)

// TestFingerprints holds what a page sends of itself to what a Go server makes of the
// schema of the same package: the same bytes, in every form.
func TestFingerprints(t *testing.T) {
	for name, flags := range map[string][]string{"awkward": {"-C", "awkward", "-map", pointFlag}, "calculator": {"-C", examples + "/calculator/api"}} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			text, _ := generate(t, append([]string{"schema"}, flags...)...)
			doc, err := schema.Parse([]byte(text))
			is.NoErr(err)
			prints, err := doc.Prints()
			is.NoErr(err)

			script := filepath.Join(t.TempDir(), "client.js")
			generate(t, append([]string{"ts", "-o", script}, flags...)...)
			client, _ := generate(t, append([]string{"ts"}, flags...)...)
			module, err := os.ReadFile(script)
			is.NoErr(err)
			for _, form := range []string{client, string(module)} {
				is.Equal(offerOf(t, form), prints.Offer())
			}
			is.Equal(prints.Differ(offerOf(t, client)).Count, 0)
		})
	}
}

// TestFingerprints_flags has what only one side of an API is told of its types make no other
// message of it: nobody is warned of a peer that sends the same.
func TestFingerprints_flags(t *testing.T) {
	const api = "awkward"
	with := func(command string, flags ...string) string {
		t.Helper()
		text, _ := generate(t, append([]string{command, "-C", api}, flags...)...)
		return text
	}
	plain := with("schema")
	doc, err := schema.Parse([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	prints, err := doc.Prints()
	if err != nil {
		t.Fatal(err)
	}
	for name, flags := range map[string][]string{"map": {"-map", pointFlag}, "notnull": {"-notnull"}, "both": {"-notnull", "-map", pointFlag}} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			is.Equal(offerOf(t, with("ts", flags...)), prints.Offer())
			flagged, err := schema.Parse([]byte(with("schema", flags...)))
			is.NoErr(err)
			others, err := flagged.Prints()
			is.NoErr(err)
			is.Equal(others.Offer(), prints.Offer())
		})
	}
	if with("schema", "-notnull") == plain || with("schema", "-map", pointFlag) == plain {
		t.Error("the flags change nothing of this package: it shows nothing")
	}
}

// TestFingerprints_older finds the one name whose messages the server has changed.
func TestFingerprints_older(t *testing.T) {
	is := is.New(t)
	text, _ := generate(t, "schema", "-C", examples+"/calculator/api")
	client, _ := generate(t, "ts", "-C", examples+"/calculator/api")
	newer := regexp.MustCompile(`("kind": "method",\s+"go": "Multiply",\s+"fingerprint": ")\w{6}`).ReplaceAllString(text, "${1}c0ffee")
	doc, err := schema.Parse([]byte(newer))
	is.NoErr(err)
	prints, err := doc.Prints()
	is.NoErr(err)
	is.Equal(prints.Differ(offerOf(t, client)).Names, []string{"math.multiply"})
}

// offerOf is what the client of what is generated sends in HELLO: the digits of all names,
// in order, as bytes.
func offerOf(t *testing.T, generated string) string {
	t.Helper()
	_, rest, found := strings.Cut(generated, "export const fingerprints")
	if !found {
		t.Fatal("there are no fingerprints")
	}
	body, _, _ := strings.Cut(rest, "};")
	var pairs []string
	for _, m := range regexp.MustCompile(`(?m): "([0-9a-f]{16})",$`).FindAllStringSubmatch(body, -1) {
		pairs = append(pairs, m[1])
	}
	if len(pairs) != strings.Count(body, "\n")-1 {
		t.Errorf("a line has no fingerprint:\n%s", body)
	}
	slices.Sort(pairs)
	data, err := hex.DecodeString(strings.Join(pairs, ""))
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawStdEncoding.EncodeToString(data)
}
