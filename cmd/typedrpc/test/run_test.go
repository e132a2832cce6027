package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool is the command, built once for all tests.
var tool string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "typedrpc")
	if err != nil {
		panic(err)
	}
	tool = filepath.Join(dir, "typedrpc.exe")
	build := exec.Command("go", "build", "-o", tool, ".")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// run runs the command, and returns what it wrote and its exit status.
func run(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.Command(tool, args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

// generate is the output of a run that must succeed.
func generate(t *testing.T, args ...string) (out, problems string) {
	t.Helper()
	out, problems, status := run(t, args...)
	if status != 0 {
		t.Fatalf("typedrpc %s: status %d\n%s", strings.Join(args, " "), status, problems)
	}
	return out, problems
}

const pointFlag = "github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward.Point=[x: number, y: number]"

// node is the directory of what needs Node, where npm has installed it. Without Node
// the test is skipped, but not where everything is to be run.
func node(t *testing.T) string {
	t.Helper()
	full := os.Getenv("TYPEDRPC_FULL") != ""
	if _, err := exec.LookPath("npm"); err != nil && !full {
		t.Skip("there is no Node")
	}
	lock, err := os.ReadFile("node/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	const stamp = "node/node_modules/.installed" // what was installed, as the lock file says
	if there, err := os.ReadFile(stamp); err == nil && bytes.Equal(there, lock) {
		return "node"
	}
	if !full {
		t.Skip("npm ci was not run in cmd/typedrpc/test/node; TYPEDRPC_FULL=1 does")
	}
	command(t, "node", "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
	write(t, stamp, string(lock))
	return "node"
}

// command runs a command that must succeed in a directory, and returns what it printed.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	out, status := output(t, dir, name, args...)
	if status != 0 {
		t.Fatalf("%s: status %d\n%s", name, status, out)
	}
	return out
}

// output runs a command in a directory, and returns what it printed and its exit status.
func output(t *testing.T, dir, name string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// build is an empty directory below node for files of this test.
func build(t *testing.T, dir string) string {
	t.Helper()
	dir = filepath.Join(dir, "build")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
