package strangers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/typedrpc/typedrpc"
)

// program is the path of a program, without which a test is skipped.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
			if p := filepath.Join(dir, name); fileExists(p) {
				return p
			}
		}
		if os.Getenv("TYPEDRPC_STRANGERS") != "" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fragment is a configuration as docs/deploy.md shows it.
func fragment(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "\n```"+language+"\n")
	text, _, closed := strings.Cut(rest, "\n```\n")
	if !ok || !closed {
		t.Fatalf("docs/deploy.md has no fragment in %s", language)
	}
	return text + "\n"
}

// changed replaces what differs on this machine: ports and files. All of it must be
// there, so that nothing of the page is left out by accident.
func changed(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the configuration of docs/deploy.md has no %q", pairs[i])
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// freePort is a port that nobody listens on, and that nobody is given who asks for any:
// those are above 32,000, and further above on other systems than Linux.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(20_000 + mathrand.IntN(12_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// authority is who has signed the proxies' certificate.
type authority struct {
	pool      *x509.CertPool
	cert, key string // files
	both      string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a := authority{pool: x509.NewCertPool(), cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), both: filepath.Join(dir, "both.pem")}
	a.pool.AddCert(cert)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	for path, data := range map[string][]byte{a.cert: certPEM, a.key: keyPEM, a.both: append(certPEM, keyPEM...)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// host is whose name the configurations have.
const host = "api.example.com"

// client reaches every name at a port of this machine.
func client(a authority, port *string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+*port)
		},
	}}
}

// backend is a server on a loopback port, as docs/deploy.md has it.
type backend struct {
	srv            *typedrpc.Server
	port           string
	log            *output
	paused, resume chan struct{} // hold a stream up in its middle
	taken          chan struct{} // an item was
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{log: new(output), paused: make(chan struct{}, 1), resume: make(chan struct{}, 1), taken: make(chan struct{}, 1)}
	b.srv = newServer(b.log)
	typedrpc.Handle(b.srv.Mux, tell, func(ctx context.Context, n int, send func(int) error) error {
		for i := range n {
			if err := send(i); err != nil {
				return err
			}
			if i == n/2 {
				b.paused <- struct{}{}
				select {
				case <-b.resume:
				case <-ctx.Done():
				}
			}
		}
		return nil
	})
	typedrpc.Handle(b.srv.Mux, add, func(_ context.Context, _ struct{}, items iter.Seq2[int, error]) (sum int, err error) {
		for n, err := range items {
			if err != nil {
				return 0, err
			}
			sum += n
			b.taken <- struct{}{}
		}
		return sum, nil
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, b.port, _ = net.SplitHostPort(l.Addr().String())
	hs := &http.Server{Handler: b.srv}
	served := make(chan struct{})
	go func() {
		defer close(served)
		hs.Serve(l)
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b.srv.Shutdown(ctx)
		hs.Close()
		<-served
	})
	return b
}

// output is what a program, or a server's log, says.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a program until the test ends. stop ends it at once.
func start(t *testing.T, path string, args ...string) (cmd *exec.Cmd, said *output, stop func()) {
	t.Helper()
	said = new(output)
	cmd = exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
			cmd.Wait()
			kill.Stop()
		})
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("%s says:\n%s", path, said)
		}
	})
	return cmd, said, stop
}

// listening waits until somebody listens on a port.
func listening(t *testing.T, port string, said *output) {
	t.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			return
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
	t.Fatalf("nobody listens on port %s:\n%s", port, said)
}
