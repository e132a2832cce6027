package test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
)

var update = flag.Bool("update", false, "write the golden files")

// TestReport finds each thing that is reported at its line, and nothing else.
func TestReport(t *testing.T) { reports(t, "ts", "reported", "reported.go") }

// reports compares what a command says of a package with the comments in one of its files.
func reports(t *testing.T, command, dir, file string) {
	t.Helper()
	_, stderr, status := run(t, command, "./"+dir)
	if status != 1 {
		t.Errorf("status %d", status)
	}
	got := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSpace(stderr), "\n") {
		pos, text, _ := strings.Cut(line, ": ")
		got[pos] += text
	}
	source, err := os.ReadFile(dir + "/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(source), "\n") {
		pos := dir + "/" + file + ":" + itoa(i+1)
		_, want, wanted := strings.Cut(line, "// want: ")
		switch text, there := got[pos]; {
		case wanted && !strings.Contains(text, want):
			t.Errorf("%s: %q is reported, not %q", pos, text, want)
		case !wanted && there:
			t.Errorf("%s: %q is reported", pos, text)
		}
		delete(got, pos)
	}
	for pos, text := range got {
		t.Errorf("%s: %s: no such line", pos, text)
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

// TestGolden keeps all of the output of the awkward package.
func TestGolden(t *testing.T) {
	for path, command := range map[string]string{"golden/awkward.ts": "ts", "golden/awkward.json": "schema"} {
		t.Run(command, func(t *testing.T) {
			is := is.New(t)
			out, _ := generate(t, command, "-map", pointFlag, "./awkward")
			if *update {
				write(t, path, out)
			}
			golden, err := os.ReadFile(path)
			is.NoErr(err)
			is.Equal(out, string(golden))
		})
	}
	t.Run("module", func(t *testing.T) {
		dir := t.TempDir()
		generate(t, "ts", "-o", filepath.Join(dir, "awkward.js"), "-map", pointFlag, "./awkward")
		for _, name := range []string{"awkward.js", "awkward.d.ts"} {
			is := is.New(t)
			out, err := os.ReadFile(filepath.Join(dir, name))
			is.NoErr(err)
			if *update {
				write(t, "golden/"+name, string(out))
			}
			golden, err := os.ReadFile("golden/" + name)
			is.NoErr(err)
			is.Equal(string(out), string(golden))
		}
	})
}

// TestModule writes a module and its types, by the name of the file, and checks both.
func TestModule(t *testing.T) {
	for name, types := range map[string]string{"client.js": "client.d.ts", "client.mjs": "client.d.mts"} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			dir := t.TempDir()
			args := []string{"ts", "../awkward", "-C", "reported", "-map", pointFlag, "-import", "./typedrpc.js", "-o", filepath.Join(dir, name)}
			generate(t, args...)
			script, err := os.ReadFile(filepath.Join(dir, name))
			is.NoErr(err)
			is.True(strings.Contains(string(script), `import * as typedrpc from "./typedrpc.js";`))
			is.True(strings.Contains(string(script), `export const confirm = typedrpc.method("page.confirm");`))
			declared, err := os.ReadFile(filepath.Join(dir, types))
			is.NoErr(err)
			is.True(strings.Contains(string(declared), "export declare const confirm: typedrpc.Method<string, boolean>;"))

			_, _, status := run(t, append(args, "-check")...)
			is.Equal(status, 0)
			write(t, filepath.Join(dir, types), strings.Replace(string(declared), "left: number", "right: number", 1))
			_, stderr, status := run(t, append(args, "-check")...)
			is.Equal(status, 1)
			is.True(strings.Contains(stderr, types+":")) // the types are stale, and the module is not
			is.True(!strings.Contains(stderr, name+":"))
			is.NoErr(os.Remove(filepath.Join(dir, types)))
			_, stderr, status = run(t, append(args, "-check")...)
			is.Equal(status, 1)
			is.True(strings.Contains(stderr, "without -check"))
		})
	}
}

// TestSame writes the same bytes in whatever order packages are named, and from wherever.
func TestSame(t *testing.T) {
	for command, orders := range map[string][][]string{
		"ts":     {{"./awkward", "./awkward/other"}, {"./awkward/other", "./awkward"}, {"-C", "awkward", "./other", "."}},
		"schema": {{"./awkward", "./awkward/other"}, {"-C", "awkward", "./other", "."}},
	} {
		is := is.New(t)
		var first string
		for i, args := range orders {
			out, _ := generate(t, append([]string{command, "-map", pointFlag}, args...)...)
			if i == 0 {
				first = out
			}
			is.Equal(out, first)
		}
	}
}

// TestCheck has -check fail where the file is stale, and write nothing.
func TestCheck(t *testing.T) {
	is := is.New(t)
	file := filepath.Join(t.TempDir(), "client.ts")
	check := func() (string, int) {
		_, stderr, status := run(t, "ts", "./awkward", "-map", pointFlag, "-check", "-o", file)
		return stderr, status
	}
	_, status := check()
	is.Equal(status, 1) // there is none yet
	generate(t, "ts", "-o", file, "./awkward", "-map", pointFlag)
	stderr, status := check()
	is.Equal(status, 0)
	is.Equal(stderr, "")
	fresh, err := os.ReadFile(file)
	is.NoErr(err)
	stale := strings.Replace(string(fresh), "left: number", "right: number", 1)
	write(t, file, stale)
	stderr, status = check()
	is.Equal(status, 1)
	is.True(strings.Contains(stderr, "client.ts:"+itoa(1+strings.Count(stale[:strings.Index(stale, "right: number")], "\n"))+": stale"))
	after, err := os.ReadFile(file)
	is.NoErr(err)
	is.Equal(string(after), stale) // and is as it was
}

// TestUsage has command lines that make no sense end with 2.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"tsx"}, {"ts", "-check", "./awkward"}, {"ts", "-map", "x", "./awkward"}, {"ts", "-nothing"}} {
		if _, stderr, status := run(t, args...); status != 2 || stderr == "" {
			t.Errorf("%q: status %d, %q", args, status, stderr)
		}
	}
	for _, args := range [][]string{{"ts", "./nowhere"}, {"ts", "./awkward/other"}, {"ts", "-strict", "./awkward"}, {"ts", "-map", "a.B=string", "-map", pointFlag, "./awkward"}} {
		if out, stderr, status := run(t, args...); status != 1 || stderr == "" || out != "" {
			t.Errorf("%q: status %d, %q", args, status, stderr)
		}
	}
}
