package client

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/typedrpc/typedrpc/internal/link"
)

// Trust says which servers may have a client's credentials when a redirect leads
// there: those of the addresses that the program gave, and those that it named.
type Trust struct {
	addresses []*url.URL
	hosts     []trustedHost
}

// trustedHost is a name, or all names below one, and a port, "": the usual one.
type trustedHost struct {
	name, port string
	below      bool
}

// NewTrust makes a Trust. Its error is a mistake in hosts; addresses are right.
func NewTrust(target string, more, hosts []string) (*Trust, error) {
	t := new(Trust)
	for _, s := range append([]string{target}, more...) {
		if u, err := url.Parse(s); err == nil && u.Host != "" {
			t.addresses = append(t.addresses, u)
		}
	}
	for _, s := range hosts {
		h, ok := parseHost(s)
		if !ok {
			return nil, fmt.Errorf("%q is no host; write example.com, example.com:8443, or *.example.com", s)
		}
		t.hosts = append(t.hosts, h)
	}
	return t, nil
}

func parseHost(s string) (h trustedHost, ok bool) {
	h.name = s
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		var err error
		if h.name, h.port, err = net.SplitHostPort(s); err != nil {
			return h, false
		}
		if n, err := strconv.ParseUint(h.port, 10, 16); err != nil || n == 0 {
			return h, false
		}
	}
	h.name, h.below = strings.CutPrefix(h.name, "*.")
	h.name = strings.ToLower(strings.TrimSuffix(strings.Trim(h.name, "[]"), "."))
	if _, err := netip.ParseAddr(h.name); err == nil {
		return h, !h.below
	}
	return h, h.name != "" && !strings.ContainsAny(h.name, "/@:?#*[]\\ \t\r\n") && !strings.HasPrefix(h.name, ".")
}

// Allows reports whether the server at u may have the credentials.
func (t *Trust) Allows(u *url.URL) bool {
	if slices.ContainsFunc(t.addresses, func(own *url.URL) bool { return link.SameServer(own, u) }) {
		return true
	}
	host, port := link.Authority(u)
	usual := "80"
	if link.Encrypted(u) {
		usual = "443"
	}
	return slices.ContainsFunc(t.hosts, func(h trustedHost) bool {
		if h.port != port && (h.port != "" || port != usual) {
			return false
		}
		return !h.below && h.name == host || h.below && strings.HasSuffix(host, "."+h.name)
	})
}
