package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/matryer/is"
)

const examples = "../../../examples"

// generators are the arguments with which //go:generate lines of the examples run a
// command, by the directory.
func generators(t *testing.T, name string) map[string][]string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^//go:generate go run -C (\S+/cmd/typedrpc) \. ` + name + ` -C (\S+)(.*)$`)
	found := map[string][]string{}
	err := filepath.WalkDir(examples, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			dir := filepath.Dir(path)
			if where := filepath.Join(dir, m[1], m[2]); where != dir {
				t.Errorf("%s generates for %s", path, where)
			}
			found[dir] = append([]string{name, "-C", dir}, strings.Fields(m[3])...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestExamples_fresh runs what go generate runs for the pages of the examples, with
// -check.
func TestExamples_fresh(t *testing.T) {
	is := is.New(t)
	for name, least := range map[string]int{"ts": 2, "json": 1, "schema": 2} { // the calculator and the chat; the dashboard; the calculator, and observed
		found := generators(t, name)
		is.True(len(found) >= least)
		for dir, args := range found {
			if _, stderr, status := run(t, append(args, "-check")...); status != 0 {
				t.Errorf("go generate was not run in %s:\n%s", dir, stderr)
			}
		}
	}
}

// TestExamples_renamed renames a field of the calculator's API and a method, and changes
// what the page is asked: tsc points at the lines of the page that broke, and at no others.
func TestExamples_renamed(t *testing.T) {
	is := is.New(t)
	node := node(t)
	build := filepath.Join(node, "_renamed") // a package that is none of ./...
	is.NoErr(os.RemoveAll(build))
	t.Cleanup(func() { os.RemoveAll(build) })
	source, web := filepath.Join(build, "calculator", "api"), filepath.Join(build, "calculator", "web")
	is.NoErr(os.MkdirAll(source, 0o755))
	is.NoErr(os.MkdirAll(web, 0o755))
	page, err := os.ReadFile(filepath.Join(examples, "calculator/web/page.js"))
	is.NoErr(err)
	write(t, filepath.Join(web, "page.js"), string(page))
	write(t, filepath.Join(build, "tsconfig.json"), `{
  "extends": "../../../../../examples/tsconfig.json",
  "compilerOptions": { "rootDirs": ["calculator/web", "../../../../../examples/internal/web/shared", "../../../../../examples/internal/web/types"] },
  "include": ["calculator/web/*.js"]
}`)
	api, err := os.ReadFile(filepath.Join(examples, "calculator/api/api.go"))
	is.NoErr(err)
	changed := string(api)
	for _, change := range [][2]string{
		{"A float64 `json:\"a\"`", "Q float64 `json:\"q\"`"},
		{`"math.squareRoot"`, `"math.root"`},
		{"NewMethod[string, bool]", "NewMethod[int, bool]"},
	} {
		is.True(strings.Contains(changed, change[0]))
		changed = strings.Replace(changed, change[0], change[1], 1)
	}
	write(t, filepath.Join(source, "api.go"), changed)
	args := generators(t, "ts")[filepath.Join(examples, "calculator/api")]
	args[2] = source
	generate(t, args...)

	out, _ := output(t, node, "npx", "tsc", "-p", "_renamed")
	var errors []string // page.js:12 TS2353
	for _, m := range regexp.MustCompile(`(?m)^(?:\S*/)?([^/\s]+)\((\d+),\d+\): error (TS\d+)|^error (TS\d+)`).FindAllStringSubmatch(out, -1) {
		errors = append(errors, m[1]+":"+m[2]+" "+m[3]+m[4])
	}
	at := func(text string) int {
		i := strings.Index(string(page), text)
		is.True(i >= 0)
		return 1 + strings.Count(string(page)[:i], "\n")
	}
	is.Equal(errors, []string{
		fmt.Sprintf("page.js:%d TS2345", at("confirm(question, signal) }")),
		fmt.Sprintf("page.js:%d TS2339", at("client.math.squareRoot")),
		fmt.Sprintf("page.js:%d TS2353", at("{ a: x, b: 1000 }")),
	})
}
