package typedrpc_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestCompile_refused compiles the programs in testdata/compile. A line that says
// what it wants does not compile, with a message in which that is found; all others
// do.
func TestCompile_refused(t *testing.T) {
	cmd := exec.Command("go", "build", "-gcflags=-e", "./testdata/compile/...")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("everything compiled")
	}
	got := map[string]string{} // messages by file and line
	at := ""
	for _, line := range strings.Split(string(out), "\n") {
		if m := regexp.MustCompile(`^(testdata/\S+\.go:\d+):\d+: (.*)`).FindStringSubmatch(line); m != nil {
			at = m[1]
			got[at] += m[2] + "\n"
		} else if strings.HasPrefix(line, "\t") && at != "" { // more of it
			got[at] += line + "\n"
		}
	}
	wants := 0
	files, _ := filepath.Glob("testdata/compile/*/*.go")
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		n := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			n++
			key := file + ":" + strconv.Itoa(n)
			text, refused := got[key]
			delete(got, key)
			_, want, wanted := strings.Cut(s.Text(), `// want "`)
			want = strings.TrimSuffix(want, `"`)
			switch {
			case !wanted && refused:
				t.Errorf("%s: does not compile: %s", key, text)
			case !wanted:
			case !refused:
				t.Errorf("%s: compiles, and should not: %s", key, s.Text())
			case !regexp.MustCompile(want).MatchString(text):
				t.Errorf("%s: want %q, got: %s", key, want, text)
			}
			if wanted {
				wants++
			}
		}
	}
	if wants < 90 {
		t.Errorf("only %d lines that are refused were found", wants)
	}
}
