package typedrpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/typedrpc/typedrpc"
)

// What the service and its SDK share; users of the SDK need not see it.
type (
	chargeRequest struct {
		Account string
		Cents   int
	}
	shortOf struct{ Cents int }
)

var (
	charge     = typedrpc.NewMethod[chargeRequest, string]("bill.charge", typedrpc.Keyed)
	balance    = typedrpc.NewMethod[string, int]("bill.balance", typedrpc.Idempotent)
	tooLittle  = typedrpc.NewFault[shortOf]("bill.too-little", typedrpc.FailedPrecondition)
	billSignIn = typedrpc.NewSignIn[string, struct{}]()
)

// Billing is the SDK: a client that is used like any other Go value. Its methods may
// be called by many goroutines at once.
type Billing struct{ conn *typedrpc.Conn }

// BillingOptions are NewBilling's. nil, and the zero value of every field, are fine.
type BillingOptions struct {
	Timeout time.Duration // of each call whose context has none. Default 10 s.
	Logger  *slog.Logger  // Default slog.Default().
	// OnState is told when the service goes away and comes back.
	OnState func(up bool)
}

// NewBilling connects to the service at url. The connection heals itself until Close.
func NewBilling(ctx context.Context, url, token string, o *BillingOptions) (*Billing, error) {
	if o == nil {
		o = &BillingOptions{}
	}
	conn, err := typedrpc.Dial(ctx, url, &typedrpc.DialOptions{
		SignIn:               billSignIn.Present(func(context.Context) (string, error) { return token, nil }),
		OutgoingInterceptors: []typedrpc.Interceptor{withTimeout(o.Timeout)},
		OutgoingRetry:        &typedrpc.RetryPolicy{MaxAttempts: 3},
		Logger:               o.Logger,
		OnState: func(s typedrpc.StateChange) {
			if o.OnState != nil {
				o.OnState(s.State == typedrpc.StateConnected)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("billing: %w", err)
	}
	return &Billing{conn}, nil
}

// withTimeout is the default deadline, in one place for all methods. A trait Timeout
// would be the declaration's, and not the SDK's user's to choose.
func withTimeout(d time.Duration) typedrpc.Interceptor {
	if d <= 0 {
		d = 10 * time.Second
	}
	return func(ctx context.Context, r *typedrpc.Request, next typedrpc.RawHandler) (typedrpc.Raw, error) {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d)
			defer cancel()
		}
		return next(ctx, r)
	}
}

// Close ends the client.
func (b *Billing) Close() error { return b.conn.Close() }

// Charge takes cents off an account and returns a receipt. It is done once, whatever
// the network does meanwhile. The error is a *ShortError if there is too little.
func (b *Billing) Charge(ctx context.Context, account string, cents int) (receipt string, err error) {
	receipt, err = typedrpc.Call(ctx, b.conn, charge, chargeRequest{account, cents})
	return receipt, asBilling("charge", err)
}

// Balance returns what an account has.
func (b *Billing) Balance(ctx context.Context, account string) (cents int, err error) {
	cents, err = typedrpc.Call(ctx, b.conn, balance, account)
	return cents, asBilling("balance", err)
}

var (
	// ErrNoAccount is what errors are of accounts that do not exist.
	ErrNoAccount = errors.New("no such account")
	// ErrUnknown is what errors are of which nobody knows whether it was done.
	ErrUnknown = errors.New("it may have been done")
)

// ShortError says how many cents are missing.
type ShortError struct {
	Cents int
	err   error
}

func (e *ShortError) Error() string { return fmt.Sprintf("billing: %d cents are missing", e.Cents) }
func (e *ShortError) Unwrap() error { return e.err }

// asBilling makes the SDK's errors. It wraps with %w: with %v the outcome would be
// lost, and every error would read as one of which nobody knows whether it was done.
func asBilling(what string, err error) error {
	if err == nil {
		return nil
	}
	if short, ok := tooLittle.From(err); ok {
		return &ShortError{short.Cents, err}
	}
	switch {
	case errors.Is(err, typedrpc.NotFound):
		return fmt.Errorf("billing: %s: %w: %w", what, ErrNoAccount, err)
	case typedrpc.OutcomeOf(err) == typedrpc.MayHaveRun:
		return fmt.Errorf("billing: %s: %w: %w", what, ErrUnknown, err)
	}
	return fmt.Errorf("billing: %s: %w", what, err)
}

// newBillingServer is the other side.
func newBillingServer(accounts map[string]int) *typedrpc.Server {
	var mu sync.Mutex
	receipts := 0
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, balance, func(_ context.Context, account string) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		cents, ok := accounts[account]
		if !ok {
			return 0, typedrpc.NotFound
		}
		return cents, nil
	})
	typedrpc.Handle(mux, charge, func(_ context.Context, r chargeRequest) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if missing := r.Cents - accounts[r.Account]; missing > 0 {
			return "", tooLittle.Errorf(shortOf{missing}, "")
		}
		accounts[r.Account] -= r.Cents
		receipts++
		return fmt.Sprint("receipt ", receipts), nil
	})
	return &typedrpc.Server{Mux: mux, SignIn: billSignIn.Verify(
		func(_ context.Context, _ *http.Request, token *string) (typedrpc.Identity, struct{}, error) {
			if token == nil || *token != "secret" {
				return typedrpc.Identity{}, struct{}{}, typedrpc.Unauthenticated
			}
			return typedrpc.Identity{Subject: "shop"}, struct{}{}, nil
		},
	)}
}

// An SDK: a type around a connection, with options and errors of its own. The
// declarations stay inside.
func Example_sdk() {
	hs := httptest.NewServer(newBillingServer(map[string]int{"ann": 500}))
	defer hs.Close()

	ctx := context.Background()
	client, err := NewBilling(ctx, hs.URL, "secret", &BillingOptions{Timeout: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	fmt.Println(client.Balance(ctx, "ann"))
	fmt.Println(client.Charge(ctx, "ann", 300))

	_, err = client.Charge(ctx, "ann", 800)
	var short *ShortError
	if errors.As(err, &short) {
		fmt.Println("short of", short.Cents, "-", typedrpc.OutcomeOf(err))
	}
	_, err = client.Balance(ctx, "bob")
	fmt.Println(errors.Is(err, ErrNoAccount), "-", err)

	_, err = NewBilling(ctx, hs.URL, "wrong", nil)
	fmt.Println(errors.Is(err, typedrpc.Unauthenticated), "-", err)
	// Output:
	// 500 <nil>
	// receipt 1 <nil>
	// short of 600 - answered
	// true - billing: balance: no such account: not found
	// true - billing: unauthenticated
}
