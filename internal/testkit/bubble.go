package testkit

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/matryer/is"
)

// Letters is a string of n bytes.
func Letters(n int) string { return strings.Repeat("abcdefghijklmnopqrstuvwxyz", n/26+1)[:n] }

// Quoted is its JSON.
func Quoted(n int) []byte { return []byte(`"` + Letters(n-2) + `"`) }

// Bubble runs test in one, by name.
func Bubble(t *testing.T, name string, test func(t *testing.T, is *is.I)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, is.New(t)) })
	})
}
