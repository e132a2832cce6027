package results

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/typedrpc/typedrpc/bench/internal/cases"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

// Number writes a figure with three digits.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1e6:
		return fmt.Sprintf("%.3g M", v/1e6)
	case a >= 99_950:
		return fmt.Sprintf("%.0f k", v/1e3)
	case a >= 9_995:
		return fmt.Sprintf("%.1f k", v/1e3)
	case a >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995 || v == math.Trunc(v):
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// ratio writes a ratio with two digits after the point.
func ratio(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f×", v)
	}
	return fmt.Sprintf("%.2f×", v)
}

// group is the cases of one table.
type group struct {
	title string
	cases []cases.Case
}

func groups(todo []cases.Case) (all []group) {
	for _, c := range todo {
		if len(all) == 0 || all[len(all)-1].title != c.Group {
			all = append(all, group{title: c.Group})
		}
		g := &all[len(all)-1]
		g.cases = append(g.cases, c)
	}
	return all
}

// Tables writes a section for each group of cases.
func (r *Results) Tables(w io.Writer, todo []cases.Case, peers []peer.Peer) {
	for _, g := range groups(todo) {
		fmt.Fprintf(w, "\n## %s\n", g.title)
		if g.cases[0].Note != "" {
			fmt.Fprintf(w, "\n%s\n", g.cases[0].Note)
		}
		if len(g.cases) == 1 {
			r.wide(w, g.cases[0], peers)
			continue
		}
		for column, col := range g.cases[0].Columns {
			r.table(w, g.cases, column, col, peers)
		}
	}
}

// measured are the peers of which there is a sample of one of the cases.
func (r *Results) measured(todo []cases.Case, peers []peer.Peer) []peer.Peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p peer.Peer) bool {
		return !slices.ContainsFunc(todo, func(c cases.Case) bool { return r.Has(c.Name, p.Info().Name) })
	})
}

// table has a row for each peer and a column for each case, of one figure.
func (r *Results) table(w io.Writer, todo []cases.Case, column int, col cases.Column, peers []peer.Peer) {
	fmt.Fprintf(w, "\n| %s |", col.Name)
	for _, c := range todo {
		fmt.Fprintf(w, " %s |", c.Title)
	}
	fmt.Fprintf(w, "\n| --- |%s\n", strings.Repeat(" ---: |", len(todo)))
	for _, p := range r.measured(todo, peers) {
		fmt.Fprintf(w, "| %s |", label(p))
		for _, c := range todo {
			fmt.Fprintf(w, " %s |", r.cell(c, p, column))
		}
		fmt.Fprintln(w)
	}
}

// wide has a row for each peer, and all the figures of one case.
func (r *Results) wide(w io.Writer, c cases.Case, peers []peer.Peer) {
	fmt.Fprintf(w, "\n| %s |", c.Title)
	for _, col := range c.Columns {
		fmt.Fprintf(w, " %s |", col.Name)
	}
	fmt.Fprintf(w, "\n| --- |%s\n", strings.Repeat(" ---: |", len(c.Columns)))
	for _, p := range r.measured([]cases.Case{c}, peers) {
		fmt.Fprintf(w, "| %s |", label(p))
		for column := range c.Columns {
			fmt.Fprintf(w, " %s |", r.cell(c, p, column))
		}
		fmt.Fprintln(w)
	}
}

func label(p peer.Peer) string {
	if i := p.Info(); i.Floor {
		return "*" + i.Name + "*"
	}
	return p.Info().Name
}

// cell is a median and, for the others, the ratio to typedrpc; bold where a peer that is no
// floor is better.
func (r *Results) cell(c cases.Case, p peer.Peer, column int) string {
	name := p.Info().Name
	if !r.Has(c.Name, name) {
		return "–"
	}
	text := Number(r.Median(c.Name, name, column))
	if name == peer.Reference || c.Columns[column].Fact {
		return text
	}
	q, ok := r.Ratio(c.Name, name, peer.Reference, column)
	if !ok {
		return text
	}
	text += " · " + ratio(q)
	if !ours(p) && !p.Info().Floor && r.Better(c, name, peer.Reference, column) {
		text = "**" + text + "**"
	}
	return text
}

func ours(p peer.Peer) bool { return strings.HasPrefix(p.Info().Name, peer.Reference) }

// Win is a figure in which a peer is better than typedrpc.
type Win struct {
	Peer, Case, Column, Than string
	Times                    float64 // how much better
}

// Wins are the figures in which peers that do RPC are better than typedrpc: than it is with
// messages that are encoded alike, where that was measured, or else as it is at its best.
func (r *Results) Wins(todo []cases.Case, peers []peer.Peer) (all []Win) {
	for _, c := range todo {
		for _, p := range peers {
			i := p.Info()
			if ours(p) || i.Floor || !r.Has(c.Name, i.Name) {
				continue
			}
			with := i.Against
			if !r.Has(c.Name, with) {
				with = peer.Reference
			}
			for column, col := range c.Columns {
				q, ok := r.Ratio(c.Name, i.Name, with, column)
				if !ok || col.Fact || !r.Better(c, i.Name, with, column) {
					continue
				}
				if col.Low {
					q = 1 / q
				}
				all = append(all, Win{i.Name, c.Group + ", " + c.Title, col.Name, with, q})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Win) int { return cmp.Compare(a.Peer, b.Peer) })
	return all
}

// WriteWins writes Wins down.
func (r *Results) WriteWins(w io.Writer, todo []cases.Case, peers []peer.Peer) {
	wins := r.Wins(todo, peers)
	if len(wins) == 0 {
		fmt.Fprintln(w, "\nNowhere, in what was measured, by more than 3 %.")
		return
	}
	fmt.Fprintf(w, "\nEach peer beside typedrpc with messages that are encoded alike, by more than 3 %% and in at\nleast four of five rounds:\n\n")
	fmt.Fprintln(w, "| peer | where | figure | better than | by |")
	fmt.Fprintln(w, "| --- | --- | --- | --- | ---: |")
	for _, v := range wins {
		by := ratio(v.Times)
		if math.IsInf(v.Times, 0) {
			by = "it needs none"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", v.Peer, v.Case, v.Column, v.Than, by)
	}
}
