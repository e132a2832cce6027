//go:build !js

package link

import (
	"net/http"
	"testing"
)

func TestAgreed_oddAnswers(t *testing.T) {
	for said, ok := range map[string]bool{
		"permessage-deflate":                                                         true,
		"permessage-deflate; server_no_context_takeover":                             true,
		"permessage-deflate;server_no_context_takeover":                              true,
		"permessage-deflate; server_max_window_bits=10":                              true,
		"permessage-deflate; server_max_window_bits=\"10\"":                          true,
		"permessage-deflate; server_max_window_bits":                                 false,
		"permessage-deflate; server_max_window_bits=":                                false,
		"permessage-deflate; server_max_window_bits=7":                               false,
		"permessage-deflate; server_max_window_bits=16":                              false,
		"permessage-deflate; server_max_window_bits=x":                               false,
		"permessage-deflate; server_max_window_bits=010":                             false,
		"permessage-deflate; server_no_context_takeover=1":                           false,
		"permessage-deflate; client_max_window_bits=10":                              false,
		"permessage-deflate; client_max_window_bits":                                 false,
		"permessage-deflate, permessage-deflate":                                     false,
		"permessage-deflate; server_no_context_takeover, x-other":                    false,
		"x-webkit-deflate-frame":                                                     false,
		"permessage-deflate; server_no_context_takeover; server_no_context_takeover": false,
		"permessage-deflate; server_max_window_bits=10; server_max_window_bits=12":   false,
		"permessage-deflate; client_no_context_takeover; client_no_context_takeover": false,
	} {
		u := &upgrader{compress: true}
		err := u.agreed(http.Header{extensions: {said}})
		if (err == nil) != ok {
			t.Errorf("%s: %v", said, err)
		}
	}
	if err := (&upgrader{}).agreed(http.Header{extensions: {"permessage-deflate"}}); err == nil {
		t.Error("not offered")
	}
}

func TestClipReason_edges(t *testing.T) {
	for _, n := range []int{119, 120, 121, 122, 123, 124} {
		for _, r := range []string{"é", "€", "𝄞", "\xf0\x9d", "\xff", "\xf0\x9d\x84\x9e\xf0\x9d"} {
			b := make([]byte, n)
			for i := range b {
				b[i] = 'x'
			}
			got := clipReason(string(b) + r + r)
			if len(got) > mostReason || len(got) < 119 {
				t.Errorf("%d %q: %d", n, r, len(got))
			}
		}
	}
}
