package client

import (
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/internal/session"
)

func TestEndpoints(t *testing.T) {
	for _, tt := range []struct {
		name, target string
		more         []string
		urls, where  string // urls: "": refused
	}{
		{"one", "ws://a/rpc", nil, "ws://a/rpc", "ws://a/rpc"},
		{"more", "ws://a/", []string{"wss://b:1/x", "http://c", "https://d"}, "ws://a/ wss://b:1/x http://c https://d", "ws://a/ wss://b:1/x http://c https://d"},
		{"list alone", "", []string{"ws://b", "ws://a"}, "ws://b ws://a", "ws://b ws://a"},
		{"twice", "ws://a", []string{"ws://b", "ws://a", "ws://b"}, "ws://a ws://b", "ws://a ws://b"},
		{"twice but for the query", "ws://a?x=1", []string{"ws://a?x=2"}, "ws://a?x=1 ws://a?x=2", "ws://a ws://a"},
		{"secrets", "wss://ann:pw@a/rpc?token=pw#pw", nil, "wss://ann:pw@a/rpc?token=pw#pw", "wss://a/rpc"},
		{"none", "", nil, "", ""}, {"empty in the list", "ws://a", []string{""}, "", ""},
		{"scheme", "ftp://pw@a", nil, "", ""}, {"no scheme", "pw:pw@a/rpc", nil, "", ""}, {"no host", "ws:///pw", nil, "", ""},
		{"bad", "ws://a/%zzpw", nil, "", ""}, {"bad in the list", "ws://a", []string{"ws://a:pw"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			all, err := endpoints(tt.target, tt.more)
			is.Equal(err == nil, tt.urls != "")
			is.Equal(CheckURLs(tt.target, tt.more) == nil, err == nil)
			if err != nil {
				is.True(!strings.Contains(err.Error(), "pw"))
				return
			}
			var urls, where []string
			for _, e := range all {
				urls, where = append(urls, e.url), append(where, e.where)
			}
			is.Equal(strings.Join(urls, " "), tt.urls)
			is.Equal(strings.Join(where, " "), tt.where)
		})
	}
}

// orders counts in which places the address of the last attempt is, and which
// addresses come first, in many rounds.
func orders(is *is.I, d *Client) (places, firsts map[int]int) {
	places, firsts = map[int]int{}, map[int]int{}
	for range 300 {
		got := d.order()
		is.Equal(len(got), len(d.endpoints))
		for _, e := range d.endpoints {
			is.True(slices.Contains(got, e)) // every one of them, once
		}
		places[slices.Index(got, d.at)]++
		firsts[slices.Index(d.endpoints, got[0])]++
	}
	return places, firsts
}

func TestClient_order(t *testing.T) {
	all, err := endpoints("ws://a", []string{"ws://b", "ws://c"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		at             endpoint
		stay, leave    bool
		places, firsts int // how many different ones there are
	}{
		{"the first time", endpoint{}, false, false, 1, 3},
		{"nothing to go on with", all[1], false, false, 3, 3},
		{"a session", all[1], true, false, 1, 1},
		{"a session on a server that goes away", all[1], true, true, 1, 1},
		{"a server that goes away", all[1], false, true, 1, 2},
		{"an address that is gone", endpoint{"ws://x", "ws://x"}, true, false, 1, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			d := &Client{endpoints: all, at: tt.at, leave: tt.leave}
			if tt.stay {
				d.sess = new(session.Session)
			}
			places, firsts := orders(is, d)
			is.Equal(len(places), tt.places)
			is.Equal(len(firsts), tt.firsts)
			switch {
			case tt.stay && tt.firsts == 1:
				is.Equal(places[0], 300)
			case tt.leave:
				is.Equal(places[2], 300)
			}
			is.Equal(d.endpoints, all) // in the order that the program gave
		})
	}
}
