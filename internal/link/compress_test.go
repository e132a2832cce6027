package link

import (
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"
)

// deflating is a server that is none of ours: it answers what it is told to about
// compression, and sends texts compressed, with one context for all or without.
func deflating(t *testing.T, answer string, keeps bool, texts ...string) (url string) {
	t.Helper()
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+answer+
			"X-Offered: "+r.Header.Get("Sec-WebSocket-Extensions")+"\r\n"+
			"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n")
		var b bytes.Buffer
		fw, _ := flate.NewWriter(&b, flate.BestCompression)
		for _, text := range texts {
			b.Reset()
			if !keeps {
				fw.Reset(&b)
			}
			io.WriteString(fw, text)
			fw.Flush()
			c.Write(frameOf(0xc1, bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))))
		}
		io.Copy(io.Discard, rw)
	}))
	t.Cleanup(hs.Close)
	return hs.URL
}

func frameOf(first byte, payload []byte) []byte {
	if len(payload) < 126 {
		return append([]byte{first, byte(len(payload))}, payload...)
	}
	return append([]byte{first, 126, byte(len(payload) >> 8), byte(len(payload))}, payload...)
}

// A server may keep its context although it was asked not to, and say so by leaving
// the parameter out (Tornado drops those that have no value).
func TestDial_compressionAsItWasAgreed(t *testing.T) {
	text := strings.Repeat("the same words again and again ", 30)
	for name, tt := range map[string]struct {
		answer string
		keeps  bool
	}{
		"as offered":           {"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n", false},
		"the server's alone":   {"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n", false},
		"nothing repeated":     {"Sec-WebSocket-Extensions: permessage-deflate\r\n", true},
		"nothing and no need":  {"Sec-WebSocket-Extensions: permessage-deflate\r\n", false},
		"the client's alone":   {"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n", true},
		"a window":             {"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15\r\n", true},
		"spaces and two lines": {"Sec-WebSocket-Extensions:  permessage-deflate ;server_no_context_takeover \r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			url := deflating(t, tt.answer, tt.keeps, text, text, "short", text)
			tr, _, resp, err := Dial(t.Context(), url, DialOptions{Compress: true})
			is.NoErr(err)
			defer tr.Kill()
			is.Equal(resp.Header.Get("X-Offered"), "permessage-deflate; client_no_context_takeover; server_no_context_takeover")
			for _, want := range []string{text, text, "short", text} {
				m, _, err := tr.Read(func() {})
				is.NoErr(err)
				is.Equal(string(m.B), want)
			}
			// What this side sends needs no context, whatever the server keeps.
			is.NoErr(tr.Write([]byte(text), true, func() {}))
			is.NoErr(tr.Write([]byte(text), true, func() {}))
		})
	}
}

// What is agreed and cannot be kept fails the handshake, not the second message.
func TestDial_compressionThatWasNotOffered(t *testing.T) {
	for name, tt := range map[string]struct {
		answer   string
		compress bool
	}{
		"compression":                     {"Sec-WebSocket-Extensions: permessage-deflate\r\n", false},
		"another":                         {"Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n", true},
		"a second":                        {"Sec-WebSocket-Extensions: permessage-deflate, permessage-bzip2\r\n", true},
		"a smaller window for the client": {"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=9\r\n", true},
		"what nobody knows":               {"Sec-WebSocket-Extensions: permessage-deflate; shorter=yes\r\n", true},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			_, _, _, err := Dial(t.Context(), deflating(t, tt.answer, false), DialOptions{Compress: tt.compress})
			is.True(err != nil)
			is.True(strings.Contains(err.Error(), "which was not offered"))
		})
	}
}

// A peer that keeps a context although it agreed not to: the error says what it is.
func TestWS_contextThatWasNotAgreed(t *testing.T) {
	is := is.New(t)
	text := strings.Repeat("the same words again and again ", 30)
	url := deflating(t, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n", true, text, text)
	tr, _, _, err := Dial(t.Context(), url, DialOptions{Compress: true})
	is.NoErr(err)
	defer tr.Kill()
	_, err = read(tr)
	is.NoErr(err)
	_, err = read(tr)
	var ce *CloseError
	is.True(errors.As(err, &ce))
	is.Equal(ce.Code, 1007)
	is.True(strings.Contains(ce.Reason, "refers to an earlier one"))
}

// The same on the server's side, of a client whose library has not understood.
func TestAccept_contextThatWasNotAgreed(t *testing.T) {
	is := is.New(t)
	text := strings.Repeat("the same words again and again ", 30)
	ends := make(chan error, 3)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr, err := Accept(w, r, "", true)
		if err != nil {
			return
		}
		for range 2 {
			_, err := read(tr)
			ends <- err
		}
		tr.Kill()
	}))
	defer hs.Close()
	c, err := net.Dial("tcp", hs.Listener.Addr().String())
	is.NoErr(err)
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n")
	var b bytes.Buffer
	fw, _ := flate.NewWriter(&b, flate.BestCompression)
	for range 2 {
		b.Reset()
		io.WriteString(fw, text)
		fw.Flush()
		f := frameOf(0xc1, bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff")))
		f[1] |= 0x80
		head := 2
		if f[1] == 0xfe {
			head = 4
		}
		c.Write(append(append(bytes.Clone(f[:head]), 0, 0, 0, 0), f[head:]...))
	}
	is.NoErr(<-ends)
	var ce *CloseError
	is.True(errors.As(<-ends, &ce))
	is.Equal(ce.Code, 1007)
}
