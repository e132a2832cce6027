package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

func TestSite(t *testing.T) {
	is := is.New(t)
	site, srv, err := newSite()
	is.NoErr(err)
	hs := httptest.NewServer(site)
	defer hs.Close()
	defer srv.Shutdown(context.Background())
	conn, err := typedrpc.Dial(t.Context(), hs.URL+"/rpc", nil)
	is.NoErr(err)
	defer conn.Close()
	_, err = typedrpc.Call(t.Context(), conn, double, 1)
	is.NoErr(err)
	resp, err := http.Get(hs.URL + "/metrics")
	is.NoErr(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	is.NoErr(err)
	for _, want := range []string{
		`rpc_server_call_duration_seconds_count{`, `rpc_method="math.double"`, `rpc_response_status_code="OK"`,
		"typedrpc_server_connections{", "typedrpc_server_memory_limit_bytes{", "typedrpc_server_io_bytes_total{",
		`typedrpc_links{`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
