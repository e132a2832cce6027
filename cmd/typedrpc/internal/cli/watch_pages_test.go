package cli

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// A page that the user has opened makes no requests with the token of the command line.
func TestWatch_pagesOfOthers(t *testing.T) {
	seen := make(chan string, 1)
	hs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("Authorization") }))
	defer hs.Close()
	w := watch(t, hs.URL, "-token", "s3cret", "-listen", "localhost:0")
	base := strings.Replace(w.url, "ws:", "http:", 1)
	for name, tt := range map[string]struct {
		host   string
		header http.Header
		with   bool
	}{
		"a program":              {"", nil, true},
		"by name":                {"localhost:80", nil, true},
		"its own page":           {"localhost:80", http.Header{"Origin": {"http://localhost:80"}, "Sec-Fetch-Site": {"same-origin"}}, true},
		"another site":           {"", http.Header{"Sec-Fetch-Site": {"cross-site"}}, false},
		"another origin":         {"", http.Header{"Origin": {"https://evil.example"}}, false},
		"no origin":              {"", http.Header{"Origin": {"null"}}, false},
		"a name that was turned": {"evil.example:9090", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/admin", nil)
			is.NoErr(err)
			r.Host = tt.host
			for k, v := range tt.header {
				r.Header[k] = v
			}
			resp, err := http.DefaultClient.Do(r)
			is.NoErr(err)
			resp.Body.Close()
			is.Equal(<-seen == "Bearer s3cret", tt.with)
		})
	}
	http.DefaultClient.CloseIdleConnections()
}
