package vet_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/typedrpc/typedrpc/vet"
)

func TestAnalyzers(t *testing.T) {
	for dir, a := range map[string]*analysis.Analyzer{
		"hidden":   vet.HiddenError,
		"noeffect": vet.NoEffect,
		"dropped":  vet.Dropped,
		"messages": vet.Messages,
		"codecs":   vet.Messages,
	} {
		t.Run(dir, func(t *testing.T) { analysistest.Run(t, analysistest.TestData(), a, dir) })
	}
}

// TestGoVet runs the command as its users do, over the library itself, which the
// other test only has a picture of.
func TestGoVet(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "typedrpc.go")); err != nil {
		t.Skip("the module of the library is not beside this one")
	}
	program, err := filepath.Abs("testdata/program.go")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, line := range strings.Split(string(source), "\n") {
		if strings.HasSuffix(line, "// want") {
			want = append(want, fmt.Sprint(i+1))
		}
	}

	tool, overlay := filepath.Join(t.TempDir(), "typedrpcvet.exe"), filepath.Join(t.TempDir(), "overlay.json")
	if out, err := exec.Command("go", "build", "-o", tool, "./cmd/typedrpcvet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// For this one command the program is in a folder of the library's module.
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "docs", "main.go"): program}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "vet", "-overlay", overlay, "-vettool", tool, "./docs")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("go vet is content")
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)\.go:(\d+):\d+: `).FindAllStringSubmatch(string(out), -1) {
		got = append(got, m[1])
	}
	if slices.Sort(want); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("lines %v are reported, not %v:\n%s", got, want, out)
	}
}
