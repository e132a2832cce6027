package main

import (
	"fmt"
	"net/http"
)

// Web pages of others, which a browser would speak for.
var origins = []attack{
	{name: "origins-foreign", what: "an upgrade from another origin", run: refused("Origin", "http://evil.example")},
	{name: "origins-two", what: "two Origin headers, the first of which is the server's own", run: func(a *arena) error {
		return refused("Origin", "http://"+a.addr, "http://evil.example")(a)
	}},
	{name: "origins-sites", what: "Sec-Fetch-Site: cross-site without an Origin", run: refused("Sec-Fetch-Site", "cross-site")},
	{name: "origins-query", what: "the server's own origin with ? or # behind it", run: func(a *arena) error {
		for _, behind := range []string{"?", "#", "?a=b", "/?", "#a"} {
			if err := refused("Origin", "http://"+a.addr+behind)(a); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "origins-null", what: "the origin null, and others that are none", run: func(a *arena) error {
		for _, bad := range []string{"null", "//", "http://", "javascript:1", "http://" + a.addr + "@evil.example", "http://" + a.addr + ".evil.example"} {
			if err := refused("Origin", bad)(a); err != nil {
				return err
			}
		}
		return nil
	}},
}

// refused makes an upgrade with headers for which the server must refuse it.
func refused(name string, values ...string) func(a *arena) error {
	return func(a *arena) error {
		if _, err := a.upgrade(binaryJSON, http.Header{name: values}); err != refusal(http.StatusForbidden) {
			return fmt.Errorf("an upgrade with %s %q: %v", name, values, err)
		}
		return nil
	}
}
