package typedrpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/typedrpc/typedrpc/internal/client"
	"github.com/typedrpc/typedrpc/internal/link"
	"github.com/typedrpc/typedrpc/internal/session"
)

// UpgradeError is the cause of a Dial that an HTTP server answered with
// something other than an upgrade: a redirect that is not followed, too.
type UpgradeError struct {
	Status int // of the response
	Header http.Header
	Body   string // its first 1,024 bytes
}

func (e *UpgradeError) Error() string {
	if e == nil {
		return "an *UpgradeError that is nil"
	}
	text := fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
	if body := strings.TrimSpace(e.Body); body != "" {
		text += ": " + body
	}
	return text
}

// CloseError is how the peer closed a link: the code and the reason of its
// WebSocket close frame. errors.As finds it in StateChange.Err, in Conn.Err, in
// what Server.OnDisconnect is told, and in the errors of calls and streams that
// ended with the link; not where the link was lost without a close frame, or this
// side closed it. PROTOCOL.md section 8 has the codes of this package.
type CloseError struct {
	Code   int    // 1005: the frame had none
	Reason string // "": it had none; what was no UTF-8 is replaced
}

func (e *CloseError) Error() string {
	if e == nil {
		return "a *CloseError that is nil"
	}
	text := fmt.Sprintf("link closed by the peer with code %d", e.Code)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// handshake is what DialOptions say of the upgrade request.
type handshake struct {
	header  http.Header // by canonical names
	host    string
	own     []string // subprotocols
	carries []string // credentials, in words
	trust   *client.Trust
}

// handshake checks Header and RedirectHosts.
func (o *DialOptions) handshake(url string) (h handshake, err error) {
	if h.trust, err = client.NewTrust(url, o.URLs, o.RedirectHosts); err != nil {
		return h, fmt.Errorf("typedrpc: DialOptions.RedirectHosts: %w", err)
	}
	h.header = http.Header{}
	for name, values := range o.Header {
		if err := checkHeader(name, values); err != nil {
			return h, err
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		h.header[name] = append(h.header[name], values...)
	}
	if err := h.takeHost(); err != nil {
		return h, err
	}
	if err := h.takeSubprotocols(o.Subprotocol); err != nil {
		return h, err
	}
	if o.SignIn.get != nil {
		h.carries = append(h.carries, "the credentials of SignIn")
	}
	for name := range h.header {
		switch {
		case strings.HasPrefix(name, "Sec-Websocket-"):
			return h, fmt.Errorf("typedrpc: DialOptions.Header must not have %s, which is the handshake's", name)
		case !public[name]:
			h.carries = append(h.carries, "the header "+name)
		}
	}
	slices.Sort(h.carries)
	return h, nil
}

// checkHeader refuses what net/http would not send: dialling again would not mend it. It
// does not show the values, which may be secret.
func checkHeader(name string, values []string) error {
	if !session.Token(name) {
		return fmt.Errorf("typedrpc: DialOptions.Header: %q is no name of a header (RFC 9110 section 5.1)", name)
	}
	if slices.ContainsFunc(values, func(v string) bool { return strings.ContainsFunc(v, unsendable) }) {
		return fmt.Errorf("typedrpc: DialOptions.Header: a value of %s has a control character, such as a line break (RFC 9110 section 5.5)", name)
	}
	return nil
}

func unsendable(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// public are headers that hold no credentials. Any other may: an X-Api-Key says
// so, others do not.
var public = map[string]bool{
	"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Cache-Control": true, "Connection": true,
	"Origin": true, "Pragma": true, "Referer": true, "Traceparent": true, "Tracestate": true, "Upgrade": true,
	"User-Agent": true, "X-Request-Id": true,
}

// subprotocols are what the dialect and the codecs offer.
func (o *DialOptions) subprotocols(codecs []Codec) ([]string, error) {
	if o.Subprotocol != "" {
		if err := session.CheckOwn(o.Subprotocol); err != nil {
			return nil, fmt.Errorf("typedrpc: DialOptions.Subprotocol: %w", err)
		}
		if len(codecs) > 1 {
			return nil, errors.New("typedrpc: DialOptions.Subprotocol stands for one codec, and Codecs has several")
		}
	}
	switch o.Dialect {
	case Binary:
		var names []string
		for i, c := range codecs {
			if err := checkCodec(c, codecs[:i]); err != nil {
				return nil, err
			}
			if err := errors.Join(o.Mux.check(c), o.SignIn.types.fits(c)); err != nil {
				return nil, err
			}
			names = append(names, session.BinaryPrefix+c.Name())
		}
		return names, nil
	case Text, JSONRPC:
		if slices.ContainsFunc(codecs, func(c Codec) bool { return c != JSON }) {
			return nil, errors.New("typedrpc: DialOptions.Codecs are for Binary: Text and JSONRPC speak JSON")
		}
		if err := errors.Join(o.Mux.check(JSON), o.SignIn.types.fits(JSON)); err != nil {
			return nil, err
		}
		if o.Dialect == JSONRPC {
			return nil, nil
		}
		return []string{session.HelloProtocol}, nil
	}
	return nil, fmt.Errorf("typedrpc: DialOptions.Dialect %d is none", o.Dialect)
}

// takeHost takes Host out of the header: net/http would not look for it there.
func (h *handshake) takeHost() error {
	hosts, ok := h.header["Host"]
	if !ok {
		return nil
	}
	delete(h.header, "Host")
	if len(hosts) != 1 || hosts[0] == "" || strings.ContainsAny(hosts[0], "/\\@?# \t\r\n") {
		return fmt.Errorf("typedrpc: DialOptions.Header has the Host %q, which is none", hosts)
	}
	h.host = hosts[0]
	return nil
}

// takeSubprotocols takes the program's own out of the header, to be offered behind
// ours.
func (h *handshake) takeSubprotocols(instead string) error {
	const name = "Sec-Websocket-Protocol"
	if _, ok := h.header[name]; !ok {
		return nil
	}
	for _, v := range h.header[name] {
		for own := range strings.SplitSeq(v, ",") {
			own = strings.Trim(own, " \t")
			switch {
			case !session.Token(own):
				return fmt.Errorf("typedrpc: DialOptions.Header has the Sec-WebSocket-Protocol %q, which is none", own)
			case strings.HasPrefix(own, session.BinaryPrefix), own == session.HelloProtocol:
				return fmt.Errorf("typedrpc: DialOptions.Header must not offer the subprotocol %q: Dialect and Codecs do", own)
			case slices.Contains(h.own, own), own == instead:
				return fmt.Errorf("typedrpc: DialOptions.Header offers the subprotocol %q twice", own)
			}
			h.own = append(h.own, own)
			if !slices.Contains(session.PlainProtocols, own) && !slices.Contains(h.carries, "the subprotocols of Header") {
				h.carries = append(h.carries, "the subprotocols of Header") // tokens travel so, from browsers
			}
		}
	}
	delete(h.header, name)
	return nil
}

// connector is how links are got.
func (h *handshake) connector(o *DialOptions) client.Connector {
	connect := o.connect
	if connect == nil {
		opts := link.DialOptions{
			HTTPClient: o.HTTPClient, Header: h.header, Host: h.host, Compress: o.Compress,
			Carries: h.carries, Trusted: h.trust.Allows,
		}
		connect = func(ctx context.Context, url string, offers []string) (link.Transport, string, *http.Response, error) {
			opts := opts
			opts.Subprotocols = offers
			return link.Dial(ctx, url, opts)
		}
	}
	own, tap, instead := h.own, o.tap, o.Subprotocol
	return func(ctx context.Context, url string, offers []string) (link.Transport, string, *http.Response, error) {
		ours := ""
		if instead != "" {
			ours, offers = strings.Join(offers, ""), []string{instead}
		}
		t, name, resp, err := connect(ctx, url, slices.Concat(offers, own))
		if tap != nil {
			seen := name
			if instead != "" && name == instead {
				seen = ours
			}
			t = tap(t, seen, err)
		}
		return t, name, resp, err
	}
}
