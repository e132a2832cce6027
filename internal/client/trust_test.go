package client

import (
	"net/url"
	"testing"

	"github.com/matryer/is"
)

func TestTrust(t *testing.T) {
	trust, err := NewTrust("wss://a.example/rpc", []string{"ws://b.example:8080/", "", "%"}, []string{"C.example.", "*.d.example:8443", "[::1]:9000", "[::2]", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"https://a.example/other":    true,
		"wss://A.example.:443":       true,
		"http://a.example":           false, // encrypted, when it was dialled
		"https://a.example:444":      false,
		"http://b.example:8080":      true,
		"https://b.example:8443":     true,
		"http://b.example":           false,
		"https://c.example":          true,
		"http://c.example":           true, // at the scheme's port
		"https://c.example:80":       false,
		"https://x.c.example":        false,
		"https://x.d.example:8443":   true,
		"https://x.y.d.example:8443": true,
		"https://d.example:8443":     false,
		"https://x.d.example":        false,
		"https://xd.example:8443":    false,
		"http://[::1]:9000":          true,
		"http://[::2]":               true,
		"http://127.0.0.1":           true,
		"http://127.0.0.1:81":        false,
		"https://e.example":          false,
	} {
		t.Run(text, func(t *testing.T) {
			is := is.New(t)
			u, err := url.Parse(text)
			is.NoErr(err)
			is.Equal(trust.Allows(u), want)
		})
	}
}
