package typedrpctest_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
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
		"Network.CutAll":      func() { network.CutAll(typedrpctest.CutReset) },
		"Network.CutEach":     func() { network.CutEach(up, 1, 1, typedrpctest.CutReset) },
		"Network.Links":       func() { network.Links() },
		"Network.Set":         func() { network.Set(up, typedrpctest.Conditions{}) },
		"Network.Stats":       func() { network.Stats() },
		"Proxy.CutAll":        func() { proxy.CutAll(typedrpctest.CutReset) },
		"nil Faults.Set":      func() { (*typedrpctest.Faults)(nil).Set(up, typedrpctest.Conditions{}) },
		"Link.Cut":            func() { link.Cut(typedrpctest.CutReset) },
		"Link.CutAfter":       func() { link.CutAfter(up, 1, typedrpctest.CutReset) },
		"Link.Host":           func() { link.Host() },
		"Link.Number":         func() { link.Number() },
		"Link.Received":       func() { link.Received(up) },
		"Recorder.Tap":        func() { (*typedrpctest.Recorder)(nil).Tap(nil) },
		"Recorder.String":     func() { _ = (*typedrpctest.Recorder)(nil).String() },
		"Recorder.WriteTo":    func() { (*typedrpctest.Recorder)(nil).WriteTo(io.Discard) },
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

// What has no function that must make it works as it is.
func TestZero_recorder(t *testing.T) {
	is := is.New(t)
	var rec typedrpctest.Recorder
	client, _ := typedrpctest.Pair(t, &typedrpc.Server{}, rec.Tap(nil))
	client.Close()
	is.True(strings.Contains(rec.String(), "WELCOME"))
	is.True(!strings.Contains(rec.String(), "earlier")) // nothing was dropped
}
