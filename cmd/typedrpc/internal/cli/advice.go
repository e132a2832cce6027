package cli

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/typedrpc/typedrpc"
)

// address is the URL that a server's argument stands for, which may lack its scheme. What
// is wrong with it is told without it: a URL may have secrets.
func address(arg string) (*url.URL, error) {
	if !strings.Contains(arg, "://") {
		arg = "ws://" + arg
	}
	u, err := url.Parse(arg)
	if err != nil || u.Hostname() == "" {
		return nil, usagef("the first argument is the server's URL, as localhost:8080/rpc or wss://example.com/rpc")
	}
	switch u.Scheme {
	case "ws", "wss", "http", "https":
		return u, nil
	}
	return nil, usagef("a server's URL begins with ws:// or wss://, or with its host; not with %s://", u.Scheme)
}

// advice is what to do about an error, where more is known than it says itself; "": nothing.
func advice(err error) string {
	var up *typedrpc.UpgradeError
	var e *typedrpc.Error
	switch {
	case errors.As(err, &up):
		return upgradeAdvice(up)
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return "-insecure does not ask who the server is: for one of your own"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the server speaks no TLS there: use ws://"
	case errors.As(err, new(*net.DNSError)):
		return "the first argument is the server's URL, as localhost:8080/rpc"
	case errors.As(err, &e) && e.Code == typedrpc.Unauthenticated && e.Outcome == typedrpc.NotSent:
		return signInAdvice
	}
	return ""
}

const signInAdvice = "-token, -credentials or -H say who you are"

func upgradeAdvice(up *typedrpc.UpgradeError) string {
	switch {
	case strings.Contains(up.Body, "HTTP request to an HTTPS server"):
		return "the server speaks TLS there: use wss://"
	case up.Status == http.StatusUnauthorized, up.Status == http.StatusForbidden:
		return signInAdvice
	case up.Status < 300, up.Status == http.StatusNotFound, up.Status == http.StatusMethodNotAllowed:
		return "no typedrpc server is at this path: has the URL the right one, as /rpc?"
	}
	return ""
}

// brief is an error for people. What a server says that is none of ours may be a page.
func brief(err error) string {
	text := strings.TrimPrefix(err.Error(), "typedrpc: ")
	if !errors.As(err, new(*typedrpc.UpgradeError)) {
		return text
	}
	const most = 300
	line, _, more := strings.Cut(text, "\n")
	if len(line) > most {
		line, more = strings.ToValidUTF8(line[:most], ""), true
	}
	if more {
		line = strings.TrimSpace(line) + " …"
	}
	return line
}
