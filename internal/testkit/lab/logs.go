package lab

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
)

// Logs is a log that a test can look at.
type Logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *Logs) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *Logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *Logs) Has(text string) bool { return strings.Contains(l.Text(), text) }

// Text is all of it.
func (l *Logs) Text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// AsError returns err as the *Error that every verb promises.
func AsError(t *testing.T, err error) *typedrpc.Error {
	t.Helper()
	is := is.New(t)
	is.Helper()
	var e *typedrpc.Error
	is.True(errors.As(err, &e)) // the error is an *Error
	return e
}
