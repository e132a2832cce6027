package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"
)

// output is what a run prints. Its server restarts on the same port, which another program
// may be given meanwhile: then it is run again.
func output(t *testing.T) string {
	is := is.New(t)
	is.Helper()
	var out bytes.Buffer
	err := run(t.Context(), "127.0.0.1:0", &out)
	for try := 1; try < 5 && errors.Is(err, syscall.EADDRINUSE); try++ {
		out.Reset()
		err = run(t.Context(), "127.0.0.1:0", &out)
	}
	is.NoErr(err)
	return out.String()
}

func TestRun(t *testing.T) {
	is := is.New(t)
	rest := output(t)
	t.Logf("output:\n%s", rest)
	for _, line := range []string{
		"The server listens on ws://127.0.0.1:",
		"connection: connected",
		"1. A call",
		"client: apples cost 120 cents",
		"2. Go",
		"client: apples, pears and plums cost [120 150 90] cents",
		"3. The server calls back",
		"client: the server asks: 2 pears for 300 cents?",
		"server: the customer said yes",
		"client: bought, for 300 cents",
		"4. A notification",
		"server: a customer looks at plums",
		"5. A deadline",
		"server: nobody waits for the count any more, so I stop",
		"is it context.DeadlineExceeded? true",
		"6. Errors",
		"not enough in stock; 10 are left",
		"not found: we do not sell bananas",
		"7. The server restarts",
		"connection: waiting",
		"a call made now waits for it",
		"connection: connected",
		"client: plums cost 90 cents",
		"connection: closed",
	} {
		_, after, found := strings.Cut(rest, line)
		is.True(found) // the line is there, and in its place
		rest = after
	}
}

// README.md shows what is printed, but for the port. What the connection tells comes on
// a goroutine of its own: within a step its place may be another.
func TestRun_readme(t *testing.T) {
	is := is.New(t)
	out := output(t)
	text, err := os.ReadFile("README.md")
	is.NoErr(err)
	_, shown, found := strings.Cut(string(text), "prints what each side does:\n\n")
	is.True(found)
	shown, _, found = strings.Cut(shown, "\nWhat to look at:")
	is.True(found)
	steps := func(text, indent string) (all []string) {
		text = regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(text, "127.0.0.1:port")
		for step := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
			var lines []string
			for line := range strings.Lines(step) {
				lines = append(lines, strings.TrimSpace(strings.TrimPrefix(line, indent)))
			}
			slices.Sort(lines)
			all = append(all, strings.Join(lines, "\n"))
		}
		return all
	}
	is.Equal(steps(shown, "    "), steps(out, ""))
}

func TestRun_portTaken(t *testing.T) {
	is := is.New(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	is.NoErr(err)
	defer taken.Close()
	err = run(t.Context(), taken.Addr().String(), new(bytes.Buffer))
	is.True(err != nil)
	is.True(strings.Contains(err.Error(), "-addr")) // says what to do
}

func TestRun_interrupted(t *testing.T) {
	is := is.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is.True(errors.Is(run(ctx, "127.0.0.1:0", new(bytes.Buffer)), context.Canceled))
}
