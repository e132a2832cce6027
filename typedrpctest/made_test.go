package typedrpctest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc/typedrpctest"
)

func TestZero_panics(t *testing.T) {
	var (
		network typedrpctest.Network
		host    typedrpctest.Host
		proxy   typedrpctest.Proxy
		link    typedrpctest.Link
		up      = typedrpctest.Up
	)
	for what, f := range map[string]func(){
		"Network.Host":        func() { network.Host("x") },
		"nil Network.Host":    func() { (*typedrpctest.Network)(nil).Host("x") },
		"Network.HTTPClient":  func() { network.HTTPClient() },
		"Network.DialContext": func() { network.DialContext(t.Context(), "tcp", "x:1") },
		"Network.Close":       func() { network.Close() },
		"Host.URL":            func() { host.URL() },
		"Host.Listen":         func() { host.Listen() },
		"Host.Serve":          func() { host.Serve(nil) },
		"Host.Start":          func() { host.Start() },
		"Host.Stop":           func() { host.Stop() },
		"Host.Unplug":         func() { host.Unplug() },
		"Host.Pair":           func() { host.Pair(t, nil, nil) },
		"Proxy.Addr":          func() { proxy.Addr() },
		"Proxy.URL":           func() { proxy.URL() },
		"Proxy.Close":         func() { proxy.Close() },
		"Link.Cut":            func() { link.Cut(typedrpctest.CutReset) },
		"Link.CutAfter":       func() { link.CutAfter(up, 1, typedrpctest.CutReset) },
		"Link.Host":           func() { link.Host() },
		"Link.Number":         func() { link.Number() },
		"Link.Received":       func() { link.Received(up) },
		"Recorder.Tap":        func() { (*typedrpctest.Recorder)(nil).Tap(nil) },
		"Recorder.String":     func() { _ = (*typedrpctest.Recorder)(nil).String() },
		"Recorder.LogOnFail":  func() { (*typedrpctest.Recorder)(nil).LogOnFailure(t) },
		"Link.Set":            func() { link.Set(up, typedrpctest.Conditions{}) },
	} {
		t.Run(what, func(t *testing.T) {
			is := is.New(t)
			defer func() {
				p := recover()
				_, bare := p.(runtime.Error)
				is.True(p != nil && !bare)
				is.True(strings.HasPrefix(fmt.Sprint(p), "typedrpctest: "))
			}()
			f()
		})
	}
}
