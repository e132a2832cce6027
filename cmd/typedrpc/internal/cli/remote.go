package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/typedrpc/typedrpc"
)

const (
	groupCall    = "call"
	groupLook    = "look"
	tokenEnv     = "TYPEDRPC_TOKEN"
	soon         = 30 * time.Second // what an answer may take, unless -timeout says otherwise
	lookTimeout  = 2 * time.Second  // for names that may have been meant
	closeTimeout = time.Second      // what saying goodbye may take after Ctrl-C
)

// remote is what all commands that connect have in common: where to, and how.
type remote struct {
	*Env
	header      []string
	token       string
	credentials string
	codec       string
	dialect     string
	meta        []string
	schema      string
	timeout     time.Duration
	compress    bool
	insecure    bool
	relays      bool // requests of others, who have tokens of their own
}

// flags are those of all that connect.
func (r *remote) flags(cmd *cobra.Command, timeout time.Duration) {
	r.httpFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.credentials, "credentials", "", "`JSON` that the server's sign-in asks for, or @file")
	f.StringVar(&r.codec, "codec", "json", "`name` of the codec; the messages of another one than json are strings in base64, here")
	f.StringVar(&r.dialect, "dialect", "binary", "how to speak: binary, `text`, or jsonrpc, as any JSON-RPC 2.0 server does")
	f.DurationVar(&r.timeout, "timeout", timeout, "how long all of it may take, as 500ms or 1m; 0s is for ever")
	f.BoolVar(&r.json, "json", false, "errors as JSON")
	f.BoolVar(&r.compress, "compress", false, "offer permessage-deflate")
	f.StringVar(&r.schema, "schema", "", "`file` with the API, as typedrpc schema writes it: for names, not to ask the server")
	for _, name := range []string{"credentials", "codec", "timeout"} {
		cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	cmd.RegisterFlagCompletionFunc("dialect", cobra.FixedCompletions([]string{"binary", "text", "jsonrpc"}, cobra.ShellCompDirectiveNoFileComp))
}

// httpFlags are those of the HTTP request.
func (r *remote) httpFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&r.header, "header", "H", nil, "`'Name: value'` of the HTTP request; may be given several times")
	f.StringVar(&r.token, "token", "", "bearer `token` of the HTTP request, or @file; default: $"+tokenEnv+". Others see what a command line has: rather use a file")
	f.BoolVar(&r.insecure, "insecure", false, "do not verify the server's certificate")
	for _, name := range []string{"header", "token"} {
		cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// metaFlag is the flag of those that call.
func (r *remote) metaFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&r.meta, "meta", nil, "`key=value` of the call's metadata; may be given several times")
	cmd.RegisterFlagCompletionFunc("meta", cobra.NoFileCompletions)
}

// within is ctx for as long as -timeout allows.
func (r *remote) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, r.timeout)
}

// dial connects to the server at url, which may lack its scheme.
func (r *remote) dial(ctx context.Context, url string) (*typedrpc.Conn, error) {
	o, err := r.options()
	if err != nil {
		return nil, err
	}
	u, err := address(url)
	if err != nil {
		return nil, err
	}
	return typedrpc.Dial(ctx, u.String(), o)
}

// options are those with which connections are dialled.
func (r *remote) options() (*typedrpc.DialOptions, error) {
	header, err := r.headers()
	if err != nil {
		return nil, err
	}
	if r.timeout < 0 {
		return nil, usagef("-timeout is a time, and 0s for ever")
	}
	o := &typedrpc.DialOptions{Header: header, Compress: r.compress, OnState: r.lost(), Logger: slog.New(slog.NewTextHandler(r.Err, nil))}
	switch r.dialect {
	case "binary":
	case "text":
		o.Dialect = typedrpc.Text
	case "jsonrpc":
		o.Dialect = typedrpc.JSONRPC
	default:
		return nil, usagef("-dialect is binary, text or jsonrpc, not %q", r.dialect)
	}
	if o.Dialect != typedrpc.Binary && r.codec != "json" {
		return nil, usagef("-dialect %s speaks JSON: it takes no -codec", r.dialect)
	}
	if o.Dialect == typedrpc.JSONRPC && (r.credentials != "" || len(r.meta) > 0) {
		return nil, usagef("-dialect jsonrpc carries no -credentials and no -meta: use -token or -H")
	}
	if r.codec != "json" {
		o.Codecs = []typedrpc.Codec{foreign(r.codec)}
	}
	if r.credentials != "" {
		if _, err := r.proof(); err != nil {
			return nil, err
		}
		o.SignIn = typedrpc.NewSignIn[typedrpc.Raw, typedrpc.Raw]().Present(func(context.Context) (typedrpc.Raw, error) { return r.proof() })
	}
	if r.insecure {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		o.HTTPClient = &http.Client{Transport: t}
	}
	return o, nil
}

// headers are those of the upgrade request.
func (r *remote) headers() (http.Header, error) {
	h := http.Header{}
	for _, line := range r.header {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, usagef("-H has the form 'Name: value'") // which may be a secret: not shown
		}
		h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	token := r.token
	if strings.HasPrefix(token, "@") {
		text, err := r.content(token)
		if err != nil {
			return nil, usagef("-token: %w", err)
		}
		token = text
	}
	if token == "" && h.Get("Authorization") == "" && !r.relays {
		token = r.Getenv(tokenEnv)
	}
	if token = strings.TrimSpace(token); token != "" {
		if strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return nil, usagef("the token has characters that no token has, such as white space")
		}
		h.Set("Authorization", "Bearer "+token)
	}
	return h, nil
}

// proof are the credentials, read again each time: a file may have new ones.
func (r *remote) proof() (typedrpc.Raw, error) {
	if r.credentials == "-" {
		return nil, usagef("-credentials are JSON or @file")
	}
	text, err := r.content(r.credentials)
	if err != nil {
		return nil, usagef("-credentials: %w", err)
	}
	if raw, err := checkJSON("", text); err == nil {
		return raw, nil
	}
	return nil, usagef("-credentials are not JSON") // of which nothing is shown
}

// lost returns the function that tells of links that were lost and came back.
func (r *remote) lost() func(typedrpc.StateChange) {
	away := false
	return func(s typedrpc.StateChange) {
		switch {
		case s.State == typedrpc.StateWaiting && !away:
			away = true
			r.note("the link is lost, dialling again: %v", s.Err)
		case s.State == typedrpc.StateConnected && away && s.Resumed:
			away = false
			r.note("the link is back, and nothing is lost")
		case s.State == typedrpc.StateConnected && away:
			away = false
			r.note("the link is back, with a new session")
		}
	}
}

// caller is conn with the metadata of the command line.
func (r *remote) caller(conn *typedrpc.Conn) (typedrpc.Caller, error) {
	var m typedrpc.Metadata
	for _, pair := range r.meta {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("-meta has the form key=value")
		}
		m.Set(key, value)
	}
	return conn.With(typedrpc.CallOptions{Metadata: m}), nil
}

// hangUp closes conn, which waits until the server has what was sent; less patiently when
// ctx has ended, by Ctrl-C.
func hangUp(ctx context.Context, conn *typedrpc.Conn) {
	done := make(chan struct{})
	go func() { // ends when Close does, after five seconds at most
		defer close(done)
		conn.Close()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(closeTimeout):
	}
}

// talk dials, has do talk to the server, and hangs up. It asks for the names that may have
// been meant if the server does not know the one that was given.
func (r *remote) talk(cmd *cobra.Command, url, name string, do func(ctx context.Context, c typedrpc.Caller) error) (err error) {
	defer func() {
		if p := recover(); p != nil { // a declaration's name that is none
			err = usagef("%v", strings.TrimPrefix(fmt.Sprint(p), "typedrpc: "))
		}
	}()
	ctx, cancel := r.within(cmd.Context())
	defer cancel()
	conn, err := r.dial(ctx, url)
	if err != nil {
		return err
	}
	defer hangUp(cmd.Context(), conn)
	c, err := r.caller(conn)
	if err != nil {
		return err
	}
	err = do(ctx, c)
	var e *typedrpc.Error
	if errors.As(err, &e) && (e.Code == typedrpc.Unimplemented || misread(cmd.Name(), e)) && ctx.Err() == nil {
		return hinted{err, r.hints(ctx, conn, name, cmd.Name())}
	}
	return err
}

// misread reports whether an error may be of a stream whose items are none of those that
// the command is for: on the wire a transfer is a stream as others are.
func misread(command string, e *typedrpc.Error) bool {
	switch command {
	case "download":
		return e.Code == typedrpc.Internal && e.Outcome == typedrpc.Answered
	case "upload", "send":
		return e.Code == typedrpc.InvalidArgument && e.Outcome == typedrpc.Answered
	}
	return false
}
