package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// TestBreaking is with which status it ends.
func TestBreaking(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old := file("old.json", `{"methods":[{"name":"a","x-typedrpc":{"kind":"method"}}]}`)
	more := file("more.json", `{"methods":[{"name":"a","x-typedrpc":{"kind":"method","timeout":5}},{"name":"b","x-typedrpc":{"kind":"method"}}]}`)
	none := file("none.json", `{"methods":[]}`)
	for _, tt := range []struct {
		args   []string
		status int
		out    string
	}{
		{[]string{old, old}, 0, "changes: 0;"},
		{[]string{old, none}, 1, "BREAKS old clients at new servers"},
		{[]string{old, none, "-json"}, 1, `"rule": "name-removed"`},
		{[]string{old, none, "-for", "new-clients"}, 0, "changes: 1;"},
		{[]string{old, more}, 1, "BREAKS new clients at old servers"},
		{[]string{"-for=old-clients", old, more}, 0, "changes: 2;"},
		{[]string{old}, 2, ""},
		{[]string{old, old, "-for", "nobody"}, 2, ""},
		{[]string{old, filepath.Join(dir, "gone.json")}, 2, ""},
		{[]string{old, file("bad.json", "[]")}, 2, ""},
	} {
		t.Run(strings.ReplaceAll(strings.Join(tt.args, " "), dir, ""), func(t *testing.T) {
			is := is.New(t)
			var out, errs bytes.Buffer
			status := Main(t.Context(), &Env{Args: append([]string{"breaking"}, tt.args...), In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }})
			is.Equal(status, tt.status)
			is.True(strings.Contains(out.String(), tt.out))
			is.Equal(errs.Len() > 0, status == 2) // a mistake is told on standard error
		})
	}
}
