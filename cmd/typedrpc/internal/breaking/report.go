package breaking

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// Options say what is compared, and how it is told.
type Options struct {
	Old, New string // files
	For      string // "old-clients", "new-clients" or "both": who is looked at
	JSON     bool
}

// For what there is to look at.
var sides = []string{"old-clients", "new-clients", "both"}

// Check says what is wrong with o, whose files nobody has opened.
func (o *Options) Check() error {
	for _, s := range sides {
		if o.For == s {
			return nil
		}
	}
	return fmt.Errorf("-for is %s, and not %q", strings.Join(sides, ", "), o.For)
}

// InputError says that a file is no schema.
type InputError struct{ error }

// Unwrap returns what is wrong with it.
func (e *InputError) Unwrap() error { return e.error }

// Run compares two files, writes what has changed, and reports whether something breaks.
// What is wrong with a file is an InputError.
func Run(o Options, out io.Writer) (breaks bool, err error) {
	before, err := os.ReadFile(o.Old)
	if err != nil {
		return false, &InputError{err}
	}
	after, err := os.ReadFile(o.New)
	if err != nil {
		return false, &InputError{err}
	}
	all, err := Compare(before, after)
	if err != nil {
		return false, &InputError{err}
	}
	for i := range all {
		switch o.For {
		case "old-clients":
			all[i].NewClients = Safe
		case "new-clients":
			all[i].OldClients = Safe
		}
		breaks = breaks || all[i].Breaks()
	}
	if o.JSON {
		return breaks, writeJSON(out, all, breaks)
	}
	return breaks, write(out, all)
}

func writeJSON(out io.Writer, all []Change, breaks bool) error {
	if all == nil {
		all = []Change{}
	}
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Breaks  bool     `json:"breaks"`
		Changes []Change `json:"changes"`
	}{breaks, all})
}

// most is how many names are listed for a person.
const most = 8

func write(out io.Writer, all []Change) error {
	var text strings.Builder
	var count [3]int
	for _, c := range all {
		worst := max(c.OldClients, c.NewClients)
		count[worst]++
		if worst == Safe {
			continue
		}
		names := strings.Join(c.Names[:min(len(c.Names), most)], ", ")
		if rest := len(c.Names) - most; rest > 0 {
			names += fmt.Sprintf(" and %d more", rest)
		}
		fmt.Fprintf(&text, "%s\n  ", names)
		if c.At != "" {
			fmt.Fprintf(&text, "%s: ", c.At)
		}
		fmt.Fprintf(&text, "%s%s [%s]\n", c.Text, c.between(), c.Rule)
		for _, side := range []struct {
			v   Verdict
			who string
		}{{c.OldClients, "old clients at new servers"}, {c.NewClients, "new clients at old servers"}} {
			switch side.v {
			case Breaks:
				fmt.Fprintf(&text, "  BREAKS %s\n", side.who)
			case Notice:
				fmt.Fprintf(&text, "  not yet for %s\n", side.who)
			}
		}
		fmt.Fprintf(&text, "  what to do: %s\n\n", c.Advice)
	}
	fmt.Fprintf(&text, "changes: %d; breaking: %d, not yet for all: %d, safe: %d\n", len(all), count[Breaks], count[Notice], count[Safe])
	_, err := io.WriteString(out, text.String())
	return err
}

// between is what it was and what it is, where there is something to say.
func (c *Change) between() string {
	switch {
	case c.Old != "" && c.New != "":
		return fmt.Sprintf(": it was %s, and is %s", c.Old, c.New)
	case c.Old+c.New != "":
		return ": " + c.Old + c.New
	}
	return ""
}
