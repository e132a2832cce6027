package client

import (
	"context"
	"sync/atomic"

	"github.com/typedrpc/typedrpc/internal/engine"
	"github.com/typedrpc/typedrpc/internal/status"
)

// refresh is one of the credentials, which all share who ask before the program has said
// what they are. It goes on while somebody waits for it.
type refresh struct {
	ctx    context.Context // no asker's, but with the first one's values
	cancel context.CancelFunc
	over   chan struct{} // closed when the program's function has returned
	askers int           // under Client.mu
	sent   atomic.Bool   // the server may have them
}

// Reauthenticate has the program asked for credentials and gives them to the server. It
// waits for a link while there is none.
func (d *Client) Reauthenticate(ctx context.Context) *status.Error {
	_, err := d.share(ctx)
	return err
}

// share is Reauthenticate, and returns the refresh that it shared, nil for none.
func (d *Client) share(ctx context.Context) (*refresh, *status.Error) {
	switch {
	case d.o.Credentials == nil:
		return nil, status.Errorf(status.FailedPrecondition, "only a connection that was dialled with DialOptions.SignIn has credentials to refresh")
	case ctx.Err() != nil:
		return nil, status.Ended(ctx, status.NotSent)
	}
	if err := d.conn.CannotWait(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	r := d.joinable
	if r == nil {
		r = &refresh{over: make(chan struct{})}
		var cancel context.CancelFunc
		r.ctx, cancel = context.WithCancel(context.WithoutCancel(engine.WithoutRequest(ctx)))
		stop := context.AfterFunc(d.ctx, cancel)
		r.cancel = func() { stop(); cancel() } // else the connection would hold every refresh there was
		d.joinable = r
	}
	r.askers++
	done := d.refreshes.DoChan("", func() (any, error) {
		defer close(r.over)
		defer r.cancel()
		if err := d.refreshOnce(r); err != nil {
			return nil, err
		}
		return nil, nil
	})
	d.mu.Unlock()
	defer d.unasked(r)
	select {
	case is := <-done:
		if is.Err == nil {
			return r, nil
		}
		if d.ctx.Err() == nil {
			return r, is.Err.(*status.Error) // refreshOnce returns nothing else
		}
		select {
		case <-d.conn.Done(): // which it ended with
		case <-ctx.Done():
		}
		return r, d.gone(ctx, r)
	case <-ctx.Done():
		if r.sent.Load() {
			return r, status.Ended(ctx, status.MayHaveRun)
		}
		return r, d.conn.GaveUp(ctx, status.NotSent)
	case <-d.conn.Done():
		return r, d.gone(ctx, r)
	}
}

// refreshOnce takes its turn: what was begun before ends first.
func (d *Client) refreshOnce(r *refresh) *status.Error {
	defer d.asked(r)
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-r.ctx.Done():
		return status.Ended(r.ctx, status.NotSent)
	}
	return d.reauthenticate(r.ctx, r)
}

// asked is called when the program has said its credentials: who asks from now on may mean
// others.
func (d *Client) asked(r *refresh) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.askedLocked(r)
}

func (d *Client) askedLocked(r *refresh) {
	if d.joinable == r {
		d.joinable = nil
		d.refreshes.Forget("")
	}
}

// unasked is called by everybody who has asked. The last one ends what goes on.
func (d *Client) unasked(r *refresh) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.askers--; r.askers == 0 {
		d.askedLocked(r)
		r.cancel()
	}
}
