package cli

import (
	"slices"
	"strings"
)

// like are the names of the document that look like name, the most similar first.
func (d *document) like(name string) []string {
	all := make([]string, 0, len(d.Methods))
	for _, m := range d.Methods {
		all = append(all, m.Name)
	}
	return like(name, all)
}

// like are at most three of all that look like name, the most similar first.
func like(name string, all []string) []string {
	const most = 3
	type candidate struct {
		name string
		far  int
	}
	var near []candidate
	low := strings.ToLower(name)
	for _, other := range all {
		lower := strings.ToLower(other)
		far := distance(low, lower)
		_, tail, _ := strings.Cut(lower, ".")
		switch {
		case lower == low:
			far = 0
		case tail == low || strings.HasPrefix(lower, low): // the beginning, or the end without the first part
			far = 1
		}
		if far <= max(2, len(name)/4) {
			near = append(near, candidate{other, far})
		}
	}
	slices.SortStableFunc(near, func(a, b candidate) int { return a.far - b.far })
	var names []string
	for _, c := range near[:min(len(near), most)] {
		names = append(names, c.name)
	}
	return names
}

// distance is how many signs have to be put in, left out, replaced or swapped to make b
// of a.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	var earlier []int
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		earlier, before, row = before, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(before[j]+1, row[j-1]+1, before[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], earlier[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
