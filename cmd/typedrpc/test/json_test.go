package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// TestJSON_golden keeps the code that is written, which is what the tests in json try.
func TestJSON_golden(t *testing.T) {
	for dir, flags := range map[string][]string{"./json/fast": nil, "./json/exact": {"-exact"}} {
		t.Run(dir, func(t *testing.T) {
			args := append([]string{"json", dir}, flags...)
			if !*update {
				args = append(args, "-check")
			}
			generate(t, args...)
		})
	}
}

// TestJSON_twins has the packages that are compared be the same but for what is written.
func TestJSON_twins(t *testing.T) {
	copies := map[string][]string{
		"awkward":   {"api.go", "structs.go", "types.go"},
		"json/fast": {"api.go", "structs.go", "types.go", "more.go", "moreapi.go"},
	}
	for from, names := range copies {
		to := "json/fast"
		if from == to {
			to = "json/plain"
		}
		for _, name := range names {
			want, err := os.ReadFile(filepath.Join(from, name))
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				write(t, filepath.Join(to, name), string(want))
			}
			if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != string(want) {
				t.Errorf("%s is not what %s is: run the tests with -update, twice", filepath.Join(to, name), filepath.Join(from, name))
			}
		}
	}
}

// TestJSON_reported finds each thing that is reported at its line, and writes nothing.
func TestJSON_reported(t *testing.T) {
	reports(t, "json", "testdata/json", "reported.go")
	if _, err := os.Stat("testdata/json/typedrpc_json.go"); err == nil {
		t.Error("a file was written")
	}
}

// TestJSON_unseen has what is written be no news to other commands.
func TestJSON_unseen(t *testing.T) {
	is := is.New(t)
	fast, _, _ := run(t, "ts", "./json/fast")
	plain, _, _ := run(t, "ts", "./json/plain")
	is.True(len(plain) > 1000)
	is.Equal(strings.ReplaceAll(fast, "json/fast", "json/plain"), plain)
}

// TestJSON_check fails where the file is stale, or another's, and where the code that is
// there does not compile any more.
func TestJSON_check(t *testing.T) {
	is := is.New(t)
	dir, err := os.MkdirTemp("json", "stale")
	is.NoErr(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	source, err := os.ReadFile("json/exact/exact.go")
	is.NoErr(err)
	path := filepath.Join(dir, "typedrpc_json.go")
	write(t, filepath.Join(dir, "exact.go"), string(source))
	_, stderr, status := run(t, "json", "./"+dir, "-check")
	is.Equal(status, 1) // there is none yet
	is.True(strings.Contains(stderr, "without -check"))
	generate(t, "json", "./"+dir)
	generate(t, "json", "./"+dir, "-check")
	first, err := os.ReadFile(path)
	is.NoErr(err)
	// The fields have other names now, which those methods still use; and something calls them.
	calls := "\nvar _ = (*Message).UnmarshalJSON\n"
	write(t, filepath.Join(dir, "exact.go"), strings.Replace(string(source), "N int", "M int", 1))
	_, stderr, status = run(t, "json", "./"+dir, "-check")
	is.Equal(status, 1)
	is.True(strings.Contains(stderr, "typedrpc_json.go:") && strings.Contains(stderr, "stale"))
	generate(t, "json", "./"+dir)
	write(t, filepath.Join(dir, "exact.go"), string(source)+calls)
	write(t, path, string(first))
	generate(t, "json", "./"+dir, "-check")
	write(t, path, "package exact\n")
	_, stderr, status = run(t, "json", "./"+dir)
	is.Equal(status, 1) // it is not ours
	is.True(strings.Contains(stderr, "-o"))
}
