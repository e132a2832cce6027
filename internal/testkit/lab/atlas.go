package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/internal/hook"
	"github.com/typedrpc/typedrpc/internal/link"
)

// Atlas has a town behind each address.
type Atlas struct {
	mu    sync.Mutex
	Towns map[string]*Town
	order []string        // the addresses that were dialled
	at    []time.Time     // and when
	Hangs map[string]bool // whose dials do not return
}

// NewAtlas has towns behind ws://a/, ws://b/ and so on.
func NewAtlas(towns ...*Town) *Atlas {
	a := &Atlas{Towns: map[string]*Town{}, Hangs: map[string]bool{}}
	for i, w := range towns {
		a.Towns[fmt.Sprintf("ws://%c/", 'a'+i)] = w
	}
	return a
}

func (a *Atlas) connect(ctx context.Context, url string, offers []string) (link.Transport, string, *http.Response, error) {
	a.mu.Lock()
	a.order = append(a.order, url[len("ws://"):len("ws://")+1])
	a.at = append(a.at, time.Now())
	w, hangs := a.Towns[url], a.Hangs[url]
	a.mu.Unlock()
	switch {
	case hangs:
		<-ctx.Done()
		return nil, "", nil, ctx.Err()
	case w == nil:
		return nil, "", nil, errors.New("no such host")
	}
	return w.connect(ctx, url, offers)
}

func (a *Atlas) TryDial(ctx context.Context, url string, o *typedrpc.DialOptions) (*typedrpc.Conn, error) {
	opts := *o
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return typedrpc.Dial(ctx, url, hook.Connect(&opts, a.connect).(*typedrpc.DialOptions))
}

func (a *Atlas) Dial(t *testing.T, o *typedrpc.DialOptions) *typedrpc.Conn {
	t.Helper()
	opts := *o
	if opts.URLs == nil {
		for i := range a.Towns {
			if i != "ws://a/" {
				opts.URLs = append(opts.URLs, i)
			}
		}
	}
	c, err := a.TryDial(t.Context(), "ws://a/", &opts)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Dialled returns the addresses that were dialled since the last time.
func (a *Atlas) Dialled() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := strings.Join(a.order, "")
	a.order = nil
	return s
}

func NewTowns(n int) (labs []*Lab, towns []*Town) {
	for range n {
		l := New()
		labs, towns = append(labs, l), append(towns, &Town{Srv: l.Server})
	}
	return labs, towns
}
