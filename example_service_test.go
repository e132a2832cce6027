package typedrpc_test

import (
	"context"
	"fmt"
	"log"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	"github.com/typedrpc/typedrpc"
)

// The API of a library that lends books, in a package of its own, which the server
// and its clients import.
type (
	Book struct {
		ID, Title string
		LentTo    string `json:",omitempty"`
	}
	Loan struct{ Book, Reader string }
)

// Validate is called before a handler sees a Loan.
func (l Loan) Validate() error {
	if l.Book == "" || l.Reader == "" {
		return typedrpc.Errorf(typedrpc.InvalidArgument, "a loan needs a book and a reader")
	}
	return nil
}

var (
	BookAdd    = typedrpc.NewMethod[Book, struct{}]("book.add")
	BookGet    = typedrpc.NewMethod[string, Book]("book.get", typedrpc.Idempotent)
	BookList   = typedrpc.NewMethod[struct{}, []Book]("book.list", typedrpc.Idempotent)
	BookFind   = typedrpc.NewMethod[string, []Book]("book.find", typedrpc.Idempotent)
	BookRename = typedrpc.NewMethod[Book, struct{}]("book.rename", typedrpc.Idempotent)
	BookRemove = typedrpc.NewMethod[string, struct{}]("book.remove")
	LoanBegin  = typedrpc.NewMethod[Loan, struct{}]("loan.begin", typedrpc.Keyed) // once, however often it is sent
	LoanEnd    = typedrpc.NewMethod[string, struct{}]("loan.end", typedrpc.Keyed)
	LoanList   = typedrpc.NewMethod[string, []Book]("loan.list", typedrpc.Idempotent)
	LoanCount  = typedrpc.NewMethod[struct{}, int]("loan.count", typedrpc.Idempotent)

	// IsLent says to whom.
	IsLent = typedrpc.NewFault[string]("book.is-lent", typedrpc.FailedPrecondition)
)

// library is the server's side: its methods are the handlers.
type library struct {
	mu    sync.Mutex // handlers run concurrently
	books map[string]*Book
}

func (l *library) mux() *typedrpc.Mux {
	mux := typedrpc.NewMux()
	typedrpc.Handle(mux, BookAdd, l.add)
	typedrpc.Handle(mux, BookGet, l.get)
	typedrpc.Handle(mux, BookList, l.list)
	typedrpc.Handle(mux, BookFind, l.find)
	typedrpc.Handle(mux, BookRename, l.rename)
	typedrpc.Handle(mux, BookRemove, l.remove)
	typedrpc.Handle(mux, LoanBegin, l.begin)
	typedrpc.Handle(mux, LoanEnd, l.end)
	typedrpc.Handle(mux, LoanList, l.loans)
	typedrpc.Handle(mux, LoanCount, l.count)
	return mux
}

func (l *library) add(_ context.Context, b Book) (done struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.books[b.ID]; ok {
		return done, typedrpc.AlreadyExists // a Code is an error
	}
	l.books[b.ID] = &Book{ID: b.ID, Title: b.Title}
	return done, nil
}

func (l *library) get(_ context.Context, id string) (Book, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.books[id]
	if !ok {
		return Book{}, typedrpc.Errorf(typedrpc.NotFound, "there is no book %q", id)
	}
	return *b, nil
}

func (l *library) list(context.Context, struct{}) ([]Book, error) {
	return l.where(func(Book) bool { return true }), nil
}

func (l *library) find(_ context.Context, word string) ([]Book, error) {
	return l.where(func(b Book) bool { return strings.Contains(b.Title, word) }), nil
}

func (l *library) rename(_ context.Context, to Book) (done struct{}, err error) {
	return done, l.change(to.ID, func(b *Book) error { b.Title = to.Title; return nil })
}

func (l *library) remove(_ context.Context, id string) (done struct{}, err error) {
	return done, l.change(id, func(b *Book) error {
		if err := free(b); err != nil {
			return err
		}
		delete(l.books, id)
		return nil
	})
}

func (l *library) begin(_ context.Context, loan Loan) (done struct{}, err error) {
	return done, l.change(loan.Book, func(b *Book) error {
		if err := free(b); err != nil {
			return err
		}
		b.LentTo = loan.Reader
		return nil
	})
}

func (l *library) end(_ context.Context, id string) (done struct{}, err error) {
	return done, l.change(id, func(b *Book) error { b.LentTo = ""; return nil })
}

func (l *library) loans(_ context.Context, reader string) ([]Book, error) {
	return l.where(func(b Book) bool { return b.LentTo == reader }), nil
}

func (l *library) count(context.Context, struct{}) (int, error) {
	return len(l.where(func(b Book) bool { return b.LentTo != "" })), nil
}

func free(b *Book) error {
	if b.LentTo != "" {
		return IsLent.Errorf(b.LentTo, "%q is lent", b.Title)
	}
	return nil
}

func (l *library) change(id string, f func(*Book) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.books[id]
	if !ok {
		return typedrpc.Errorf(typedrpc.NotFound, "there is no book %q", id)
	}
	return f(b)
}

func (l *library) where(ok func(Book) bool) []Book {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := []Book{}
	for _, id := range slices.Sorted(maps.Keys(l.books)) {
		if b := *l.books[id]; ok(b) {
			found = append(found, b)
		}
	}
	return found
}

// A service of ten methods: declarations that both sides import, a type whose methods
// are the handlers, and one function that registers them.
func Example_service() {
	l := &library{books: map[string]*Book{}}
	srv := &typedrpc.Server{Mux: l.mux()}
	if err := srv.Check(); err != nil {
		log.Fatal(err)
	}
	hs := httptest.NewServer(srv) // in a program: http.Handle("/rpc", srv)
	defer hs.Close()

	ctx := context.Background()
	conn, err := typedrpc.Dial(ctx, hs.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	for _, b := range []Book{{ID: "1", Title: "Emma"}, {ID: "2", Title: "Persuasion"}} {
		if _, err := typedrpc.Call(ctx, conn, BookAdd, b); err != nil {
			log.Fatal(err)
		}
	}
	_, err = typedrpc.Call(ctx, conn, LoanBegin, Loan{Book: "1", Reader: "ann"})
	fmt.Println("ann borrows it:", err)
	_, err = typedrpc.Call(ctx, conn, LoanBegin, Loan{Book: "1", Reader: "bob"})
	if reader, ok := IsLent.From(err); ok {
		fmt.Println("bob does not:", err, "to", reader)
	}
	_, err = typedrpc.Call(ctx, conn, LoanBegin, Loan{Book: "1"})
	fmt.Println("nobody does not:", err)
	_, err = typedrpc.Call(ctx, conn, BookGet, "3")
	fmt.Println(err)
	fmt.Println(typedrpc.Call(ctx, conn, LoanList, "ann"))
	// Output:
	// ann borrows it: <nil>
	// bob does not: failed precondition: "Emma" is lent to ann
	// nobody does not: invalid argument: a loan needs a book and a reader
	// not found: there is no book "3"
	// [{1 Emma ann}] <nil>
}
