package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
)

// watcher is a proxy that prints what it carries.
type watcher struct {
	*remote
	listen  string
	most    int
	values  bool
	target  *url.URL
	client  *http.Client
	last    atomic.Int64 // number of a connection
	stop    context.CancelCauseFunc
	running sync.WaitGroup
	gate    sync.Mutex // of closed
	closed  bool       // nothing begins any more
	mu      sync.Mutex // lines
}

func (env *Env) watchCommand() *cobra.Command {
	w := &watcher{remote: &remote{Env: env, relays: true}}
	cmd := &cobra.Command{
		GroupID: groupLook, Use: "watch url", Short: "a recorder between two ends: print every frame",
		Long: `typedrpc watch listens, carries what comes to the server at url, and prints every frame of every
connection, and of every POST, in whatever dialect. "#1 >" is from the client of the first
connection, "#1 <" from the server. Credentials, session tokens and the values of metadata are
not shown; payloads are.`,
		Example: `  typedrpc watch localhost:8080/rpc -listen localhost:9090
  typedrpc call localhost:9090/rpc shop.price '"apples"'
  typedrpc watch localhost:8080/rpc -listen localhost:9090 -json | jq -c 'select(.type == "FAIL")'`,
		Args: takes(1, 1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = does(func(cmd *cobra.Command, args []string) error {
		if env.json && !cmd.Flags().Changed("cut") {
			w.most = 0
		}
		return w.run(cmd.Context(), args[0])
	})
	f := cmd.Flags()
	f.StringVar(&w.listen, "listen", "127.0.0.1:0", "`address` to listen on; port 0 is any free one")
	f.IntVar(&w.most, "cut", 200, "payloads are cut to so `many` bytes; 0: never, as with -json")
	f.BoolVar(&w.values, "meta", false, "show the values of metadata, which may be secrets")
	f.BoolVar(&w.json, "json", false, "an object for each frame")
	w.httpFlags(cmd)
	return cmd
}

// run listens until ctx ends.
func (w *watcher) run(ctx context.Context, target string) error {
	u, err := address(target)
	if err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(w.listen); err != nil {
		return usagef("-listen: %w; it is host:port, as localhost:9090 or :9090", err)
	}
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	w.target, w.client = u, &http.Client{Transport: w.transport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if _, err := w.headers(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", w.listen)
	if err != nil {
		return err
	}
	ctx, w.stop = context.WithCancelCause(ctx)
	defer w.stop(nil)
	w.note("listening on ws://%s%s, for %s", l.Addr(), u.EscapedPath(), u.Host)
	hs := &http.Server{Handler: w, BaseContext: func(net.Listener) context.Context { return ctx }, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { hs.Close() })()
	hs.Serve(l)
	w.gate.Lock()
	w.closed = true
	w.gate.Unlock()
	w.running.Wait()
	return context.Cause(ctx)
}

// transport is how the server is reached.
func (w *watcher) transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ForceAttemptHTTP2 = false
	t.TLSClientConfig = &tls.Config{InsecureSkipVerify: w.insecure}
	return t
}

// begin counts what run waits for, unless it is too late.
func (w *watcher) begin() bool {
	w.gate.Lock()
	defer w.gate.Unlock()
	if !w.closed {
		w.running.Add(1)
	}
	return !w.closed
}

// ServeHTTP carries a connection, or a request.
func (w *watcher) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !w.begin() {
		return
	}
	defer w.running.Done()
	n := w.last.Add(1)
	upgrade := strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
	to := *w.target
	if to.RawQuery = r.URL.RawQuery; r.URL.Path != "/" || !upgrade && r.Method != http.MethodPost {
		to.Path, to.RawPath = r.URL.Path, r.URL.RawPath
	}
	if upgrade {
		w.connection(rw, r, n, &to)
		return
	}
	r.Header = w.header(r)
	w.request(rw, r, n, &to)
}

// header is that of r as the server gets it.
func (w *watcher) header(r *http.Request) http.Header {
	head := r.Header.Clone()
	// A page that came by this proxy is of the server's own origin. One that came by a name
	// may have had its name pointed here: that is for the server to refuse.
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	direct := net.ParseIP(strings.Trim(host, "[]")) != nil || host == "localhost"
	if o, err := url.Parse(r.Header.Get("Origin")); err == nil && direct && o.Host == r.Host {
		head.Set("Origin", w.target.Scheme+"://"+w.target.Host)
	}
	own, _ := w.headers()
	for name, values := range own {
		if w.ours(r, host, direct) {
			head[name] = values
		}
	}
	return head
}

// ours reports whether a request gets what -token and -H say. Any page that the user opens
// can have the browser send requests here, by a name of its own also, and read what a name
// of its own answers. Of WebSockets the server is told the origin, and refuses.
func (w *watcher) ours(r *http.Request, host string, direct bool) bool {
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return true
	}
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	own := site == "" || site == "none" || site == "same-origin"
	if o, err := url.Parse(origin); origin != "" && (err != nil || o.Host != r.Host) {
		own = false
	}
	name, _, _ := net.SplitHostPort(w.listen)
	return own && (direct || strings.EqualFold(host, name))
}

// print prints frames of a connection.
func (w *watcher) print(n int64, from string, all ...frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range all {
		f.Conn, f.From = n, from
		f.cut(w.most)
		var err error
		if w.json {
			f.Time = time.Now().Format(time.RFC3339Nano)
			err = w.object(f)
		} else {
			f.Time = time.Now().Format("15:04:05.000")
			_, err = fmt.Fprintln(w.Out, strings.ReplaceAll(printable(f.line()), "\n", `\n`)) // a line each, whatever a reason has
		}
		if err != nil {
			w.stop(err)
			return
		}
	}
}

// connection carries a WebSocket until one of its ends has ended.
func (w *watcher) connection(rw http.ResponseWriter, r *http.Request, n int64, to *url.URL) {
	ctx := r.Context()
	var offers []string
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(line, ",") {
			offers = append(offers, strings.TrimSpace(name))
		}
	}
	head := w.header(r)
	for name := range head {
		if strings.HasPrefix(name, "Sec-Websocket-") || name == "Connection" || name == "Upgrade" {
			head.Del(name) // which are a handshake's own
		}
	}
	far, resp, err := websocket.Dial(ctx, to.String(), &websocket.DialOptions{HTTPClient: w.client, HTTPHeader: head, Subprotocols: offers})
	if err != nil {
		w.refused(rw, n, resp, err)
		return
	}
	defer far.CloseNow()
	for _, cookie := range resp.Header["Set-Cookie"] {
		rw.Header().Add("Set-Cookie", cookie)
	}
	var chosen []string
	if far.Subprotocol() != "" {
		chosen = []string{far.Subprotocol()}
	}
	near, err := websocket.Accept(rw, r, &websocket.AcceptOptions{Subprotocols: chosen, InsecureSkipVerify: true}) // the server has looked at the origin
	if err != nil {
		w.print(n, "client", frame{Type: "CUT", Text: err.Error()})
		return
	}
	defer near.CloseNow()
	near.SetReadLimit(-1)
	far.SetReadLimit(-1)
	w.print(n, "client", frame{Type: "OPEN", Text: strings.TrimSpace(r.RemoteAddr + " " + far.Subprotocol())})
	var first sync.Once
	var both sync.WaitGroup
	carry := func(from string, src, dst *websocket.Conn) {
		d := newDecoder(far.Subprotocol(), w.values)
		for {
			kind, msg, err := src.Read(ctx)
			if err == nil {
				w.print(n, from, d.frames(msg)...)
				if err = dst.Write(ctx, kind, msg); err == nil {
					continue
				}
				src.CloseNow() // who reads from dst says what became of it
				return
			}
			first.Do(func() { w.print(n, from, ended(err)) })
			pass(dst, err)
			return
		}
	}
	both.Go(func() { carry("client", near, far) })
	both.Go(func() { carry("server", far, near) })
	both.Wait()
}

// ended is how a connection did.
func ended(err error) frame {
	var c websocket.CloseError
	if errors.As(err, &c) {
		return frame{Type: "CLOSE", Text: strings.TrimSpace(fmt.Sprintf("%d %s", c.Code, c.Reason))}
	}
	return frame{Type: "CUT", Text: err.Error()}
}

// pass hands the end of one side on to the other: a close as that, a cut as a cut.
func pass(dst *websocket.Conn, err error) {
	var c websocket.CloseError
	if errors.As(err, &c) {
		dst.Close(c.Code, c.Reason)
		return
	}
	dst.CloseNow()
}

// refused hands on what the server answered to an upgrade.
func (w *watcher) refused(rw http.ResponseWriter, n int64, resp *http.Response, err error) {
	if resp == nil {
		w.print(n, "server", frame{Type: "REFUSED", Text: err.Error()})
		http.Error(rw, "the server cannot be reached: "+err.Error(), http.StatusBadGateway)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	w.print(n, "server", frame{Type: "REFUSED", Text: strings.TrimSpace(resp.Status + " " + string(body))})
	for _, name := range []string{"Content-Type", "Retry-After", "Location", "Www-Authenticate"} {
		if v := resp.Header.Get(name); v != "" {
			rw.Header().Set(name, v)
		}
	}
	rw.WriteHeader(resp.StatusCode)
	rw.Write(body)
}

// request carries a request, and prints it if it is JSON-RPC by POST.
func (w *watcher) request(rw http.ResponseWriter, r *http.Request, n int64, to *url.URL) {
	isJSON := func(h http.Header) bool { return strings.HasPrefix(h.Get("Content-Type"), "application/json") }
	post := r.Method == http.MethodPost && isJSON(r.Header)
	p := &httputil.ReverseProxy{
		Transport: w.client.Transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = to, to.Host
			if post {
				p.Out.Header.Del("Accept-Encoding")
			}
		},
		ErrorHandler: func(rw http.ResponseWriter, _ *http.Request, err error) { w.refused(rw, n, nil, err) },
	}
	if post {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.print(n, "client", newDecoder("", w.values).frames(body)...)
		r.Body = io.NopCloser(bytes.NewReader(body))
		p.ModifyResponse = func(resp *http.Response) error {
			if !isJSON(resp.Header) {
				return nil
			}
			body, err := io.ReadAll(resp.Body)
			if err == nil && json.Valid(body) {
				w.print(n, "server", newDecoder("", w.values).frames(body)...)
			}
			resp.Body = io.NopCloser(bytes.NewReader(body))
			return err
		}
	}
	p.ServeHTTP(rw, r)
}
