package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// mostMemory is where a server is killed, so that the machine is not.
const mostMemory = 6_000_000_000

// process is a program of ours that runs, with lines in and out.
type process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed at its end
	errs  *bytes.Buffer

	asking sync.Mutex
}

func (p program) start(ctx context.Context, args ...string) (*process, error) {
	return run(exec.CommandContext(ctx, p.path, args...))
}

// startLast is start for what others go before: on a machine that is shared, what
// is measured is the server.
func (p program) startLast(ctx context.Context, args ...string) (*process, error) {
	nice, err := exec.LookPath("nice")
	if err != nil {
		return p.start(ctx, args...)
	}
	return run(exec.CommandContext(ctx, nice, append([]string{"-n", "19", p.path}, args...)...))
}

func run(cmd *exec.Cmd) (*process, error) {
	x := &process{cmd: cmd, lines: make(chan string, 16), errs: &bytes.Buffer{}}
	cmd.Stderr = x.errs
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	x.in = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(x.lines)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 16<<20)
		for s.Scan() {
			x.lines <- s.Text()
		}
	}()
	return x, nil
}

// line is the next line that it prints.
func (x *process) line(within time.Duration) (string, error) {
	select {
	case s, ok := <-x.lines:
		if !ok {
			x.cmd.Wait() // until all is there that it had to say
			return "", fmt.Errorf("the process ended: %.2000s", x.errs)
		}
		return s, nil
	case <-time.After(within):
		return "", fmt.Errorf("no answer within %v", within)
	}
}

// ask sends a command, and returns its answer.
func (x *process) ask(command string) (string, error) {
	x.asking.Lock()
	defer x.asking.Unlock()
	if _, err := fmt.Fprintln(x.in, command); err != nil {
		return "", err
	}
	return x.line(30 * time.Second)
}

func (x *process) stats() (s stats, err error) {
	line, err := x.ask("stats")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(line), &s)
}

// end has it end by itself.
func (x *process) end() {
	x.in.Close()
	select {
	case <-time.After(patience):
	case <-x.ended():
	}
	x.kill()
}

// ended is closed when its output has.
func (x *process) ended() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range x.lines {
		}
	}()
	return done
}

// kill ends it at once; the kernel closes its sockets.
func (x *process) kill() {
	x.cmd.Process.Kill()
	for range x.lines {
	}
	x.cmd.Wait()
}

// memory is what is resident now, and the most that was.
func (x *process) memory() (now, most int64) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", x.cmd.Process.Pid))
	for line := range strings.SplitSeq(string(b), "\n") {
		name, value, _ := strings.Cut(line, ":")
		kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = kb << 10
		case "VmHWM":
			most = kb << 10
		}
	}
	return now, most
}

// cpu is the time that it has used, in the kernel's ticks of a hundredth of a
// second.
func (x *process) cpu() time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", x.cmd.Process.Pid))
	_, after, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// guard looks at a server's memory until ctx ends, and kills it when it has too
// much. It tells the most that it saw.
func (x *process) guard(ctx context.Context) (end func() (most int64, killed bool)) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var most int64
	var killed bool
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			now, peak := x.memory()
			most = max(most, peak) // the kernel's own maximum, between two looks too
			if now > mostMemory && !killed {
				killed = true
				x.cmd.Process.Kill()
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() (int64, bool) {
		cancel()
		<-done
		return most, killed
	}
}
