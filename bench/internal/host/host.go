// Package host runs the server of a peer in a process of its own: the same program, started
// again.
package host

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"time"

	"github.com/typedrpc/typedrpc/bench/internal/measure"
	"github.com/typedrpc/typedrpc/bench/internal/peer"
)

// variable tells a process that it is to be a server, and of which peer.
const variable = "TYPEDRPC_BENCH_SERVE"

// profiled tells it to write a CPU profile, to that file.
const profiled = "TYPEDRPC_BENCH_PROFILE"

// Profile is the file that servers' processes write a CPU profile to, if it is not empty: the
// last one's stays.
var Profile string

// command is what the parent asks, a line of JSON; answer is what it is told.
type (
	command struct {
		Settle  bool // collect garbage before the answer
		Publish int
	}
	answer struct {
		Addr  string
		Usage measure.Usage
		Error string
	}
)

// Main is to be called first by main and by TestMain: in a process that is to be a server it
// serves until its parent is gone, and does not return.
func Main() {
	name := os.Getenv(variable)
	if name == "" {
		return
	}
	if err := serve(name, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(name string, in io.Reader, out io.Writer) error {
	p, err := peer.Named(name)
	if err != nil {
		return err
	}
	s, err := p.Serve()
	if err != nil {
		return err
	}
	defer s.Close()
	if file := os.Getenv(profiled); file != "" {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	enc, dec := json.NewEncoder(out), json.NewDecoder(bufio.NewReader(in))
	if err := enc.Encode(answer{Addr: s.Addr()}); err != nil {
		return err
	}
	for {
		var c command
		if dec.Decode(&c) != nil {
			return nil // the parent is gone
		}
		var a answer
		if c.Publish > 0 {
			if err := s.(peer.Publisher).Publish(c.Publish); err != nil {
				a.Error = err.Error()
			}
		}
		a.Usage = measure.Now(c.Settle)
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

// Process is a server in a process of its own.
type Process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	enc  *json.Encoder
	dec  *json.Decoder
	addr string
}

// Start starts the server of a peer.
func Start(p peer.Peer) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), variable+"="+p.Info().Name, profiled+"="+Profile)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &Process{cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out)}
	var a answer
	if err := s.dec.Decode(&a); err != nil {
		s.Close()
		return nil, fmt.Errorf("the server's process: %w", err)
	}
	s.addr = a.Addr
	return s, nil
}

// Addr is where it listens.
func (s *Process) Addr() string { return s.addr }

// Close ends it: it goes when its input ends, or else in five seconds.
func (s *Process) Close() {
	s.in.Close()
	defer time.AfterFunc(5*time.Second, func() { s.cmd.Process.Kill() }).Stop()
	s.cmd.Wait()
}

func (s *Process) ask(c command) (measure.Usage, error) {
	if err := s.enc.Encode(c); err != nil {
		return measure.Usage{}, err
	}
	var a answer
	if err := s.dec.Decode(&a); err != nil {
		return measure.Usage{}, err
	}
	if a.Error != "" {
		return a.Usage, fmt.Errorf("the server: %s", a.Error)
	}
	return a.Usage, nil
}

// Usage returns what the server's process has used until now.
func (s *Process) Usage(settle bool) (measure.Usage, error) { return s.ask(command{Settle: settle}) }

// Publish has it publish n messages.
func (s *Process) Publish(n int) error {
	_, err := s.ask(command{Publish: n})
	return err
}
