// Command hostile attacks a typedrpc server that runs in a process of its own,
// and measures what that costs the server and an honest client beside it.
//
//	go build -o /tmp/hostile ./internal/e2e/hostile
//	/tmp/hostile run -budget 256MiB            # all attacks, as a markdown table
//	/tmp/hostile run -only unread -size small  # those with "unread" in their names
//	/tmp/hostile list                          # their names, and what they do
//
// For each attack there is a fresh server, an honest client that makes a small call
// every two milliseconds, and the attackers, each in a process of its own. The
// attackers have the lowest priority, because one machine has all of them: they
// slow the honest client down by what they make the server do, and not by what
// they do themselves. When they have done their worst they are killed, and the server has five
// seconds to be as it was before they came: its heap, its goroutines, its ledger.
// A server that passes 6 GB is killed, and its row says so.
//
// The table of attacks is in attacks.go; each kind has a file of its own. The
// same attacks in small sizes are TestHostile, whose bounds fail. What is
// measured comes from /proc, so it runs on Linux only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := command(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

func command(args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("run, list, or (what run starts) server, honest or attack")
	}
	switch args[0] {
	case "server":
		return serverMain(args[1:], os.Stdin, out)
	case "honest":
		return honestMain(args[1:], os.Stdin, out)
	case "attack":
		return attackMain(args[1:], os.Stdin, out)
	case "list":
		for _, a := range attacks {
			fmt.Fprintf(out, "%-24s %s\n", a.name, a.what)
		}
		return nil
	case "run":
		return runMain(args[1:], out)
	}
	return fmt.Errorf("no command %q", args[0])
}

// runMain makes the table.
func runMain(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	budget := fs.String("budget", "256MiB", "Server.MaxMemory")
	only := fs.String("only", "", "attacks whose names have this in them, or one of these with commas between")
	stacks := fs.Bool("stacks", false, "say where the goroutines are of a server that is not as it was")
	profiles := fs.String("profiles", "", "a directory for the server's profiles: of the processor during each attack, of the heap at its worst")
	size := fs.String("size", "full", "small or full")
	if err := fs.Parse(args); err != nil {
		return err
	}
	n, err := parseBytes(*budget)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	p := program{path: self, budget: n, full: *size == "full", stacks: *stacks, profiles: *profiles}
	fmt.Fprintln(out, header)
	failed := 0
	for _, a := range attacks {
		if !matches(a.name, *only) || ctx.Err() != nil {
			continue
		}
		r := p.measure(ctx, a)
		if len(r.faults(n)) > 0 {
			failed++
		}
		fmt.Fprintln(out, r.row(n))
		if r.stacks != "" {
			fmt.Fprintln(os.Stderr, strings.ReplaceAll(r.stacks, "\v", "\n"))
		}
	}
	fmt.Fprintf(out, "\n%d rows are outside the bounds.\n", failed)
	return ctx.Err()
}

func matches(name, only string) bool {
	for part := range strings.SplitSeq(only, ",") {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

func parseBytes(s string) (int64, error) {
	shift := 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if cut, ok := strings.CutSuffix(s, unit); ok {
			s, shift = cut, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(s, 10, 32)
	return n << shift, err
}

// attackMain is the attackers' process. It says when it has done what it can, and
// holds what it has until it is killed or its input ends.
func attackMain(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet("attack", flag.ContinueOnError)
	name := fs.String("name", "", "of the attack")
	addr := fs.String("addr", "", "of the server")
	full := fs.Bool("full", false, "the full size")
	if err := fs.Parse(args); err != nil {
		return err
	}
	for _, a := range attacks {
		if a.name != *name {
			continue
		}
		limit := 800 * time.Millisecond
		if *full {
			limit = 20 * time.Second
		}
		ar := newArena(*addr, *full, limit)
		defer ar.stop()
		err := a.run(ar)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) { // the time was over
			fmt.Fprintf(out, "failed %v\n", err)
		} else {
			fmt.Fprintf(out, "done %s\n", ar.told())
		}
		io.Copy(io.Discard, in)
		return nil
	}
	return fmt.Errorf("no attack %q", *name)
}
