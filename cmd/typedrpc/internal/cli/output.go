package cli

import (
	"fmt"
	"os"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/internal/read"
)

// An output is a file that is written, "" standard output.
type output struct{ path, text string }

// fatal says what is wrong, and reports whether that leaves no output.
func (g *generator) fatal(problems []read.Problem) (fatal bool) {
	for _, p := range problems {
		fmt.Fprintln(g.Err, p)
		fatal = fatal || p.Fatal || g.strict
	}
	return fatal
}

// tell tells an error that begins with where it is.
func (g *generator) tell(err error) error {
	fmt.Fprintln(g.Err, err)
	return status(statusFailed)
}

// putAll puts all files; what is how they are made.
func (g *generator) putAll(outputs []output, what string) (err error) {
	for _, o := range outputs {
		if fault := g.put(o, what); fault != nil {
			err = g.tell(fault)
		}
	}
	return err
}

// put writes a file that is not as it should be, or says so; what is how it is made.
func (g *generator) put(o output, what string) error {
	there, err := os.ReadFile(o.path)
	switch {
	case err == nil && string(there) == o.text:
		return nil
	case g.check && err != nil:
		return fmt.Errorf("typedrpc: %w; run \"typedrpc %s\" without -check", err, what)
	case g.check:
		return fmt.Errorf("%s:%d: stale: it is not what the packages declare any more; run \"typedrpc %s\" again without -check", o.path, firstDifference(string(there), o.text), what)
	}
	if err := os.WriteFile(o.path, []byte(o.text), 0o644); err != nil {
		return fmt.Errorf("typedrpc: %w", err)
	}
	return nil
}

// firstDifference is the first line in which two texts differ.
func firstDifference(a, b string) int {
	line := 1
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			break
		}
		if a[i] == '\n' {
			line++
		}
	}
	return line
}
