package wire

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"
)

func TestHello(t *testing.T) {
	is := is.New(t)
	in := HelloBody{
		Attempt: 2, Token: "t\"", Received: 9, Credentials: []byte(`{"user":"u"}`),
		Limits: Limits{Message: 1, Calls: 2, Window: 3}, Features: []string{"a", "b"}, Cache: "c", Schema: "s",
	}
	text := in.Append([]byte("x"))
	is.Equal(string(text), `x{"attempt":2,"token":"t\"","received":9,"credentials":{"user":"u"},`+
		`"limits":{"message":1,"calls":2,"window":3},"features":["a","b"],"cache":"c","schema":"s"}`)
	got, err := ParseHello(text[1:])
	is.NoErr(err)
	is.True(slices.Equal(got.Features, in.Features))
	is.Equal(string(got.Append(nil)), string(text[1:]))

	empty := HelloBody{}
	is.Equal(string(empty.Append(nil)), `{}`)
	got, err = ParseHello([]byte(` {"credentials":null,"later":[1],"features":[]} `))
	is.NoErr(err)
	is.Equal(string(got.Credentials), "null") // a value
	is.Equal(got.Attempt, uint64(0))
	got, err = ParseHello([]byte(`{}`))
	is.NoErr(err)
	is.True(got.Credentials == nil)
}

func TestWelcome(t *testing.T) {
	is := is.New(t)
	in := WelcomeBody{
		Token: "t", Resumed: true, Reason: "r", Received: 9, Reply: []byte(`"ok"`),
		Limits: Limits{Calls: 2}, Features: []string{"a"}, Keepalive: 20000, Cache: "c", Schema: "s",
	}
	text := in.Append(nil)
	is.Equal(string(text), `{"token":"t","resumed":true,"reason":"r","received":9,"reply":"ok",`+
		`"limits":{"calls":2},"features":["a"],"keepalive":20000,"cache":"c","schema":"s"}`)
	got, err := ParseWelcome(text)
	is.NoErr(err)
	is.Equal(got.Limits, in.Limits)
	is.Equal(string(got.Append(nil)), string(text))
	empty := WelcomeBody{}
	is.Equal(string(empty.Append(nil)), `{"resumed":false}`)
}

func TestAuth(t *testing.T) {
	is := is.New(t)
	in := AuthBody{Credentials: []byte(`"c"`)}
	text := in.Append(nil)
	is.Equal(string(text), `{"credentials":"c"}`)
	got, err := ParseAuth(text)
	is.NoErr(err)
	is.Equal(string(got.Credentials), `"c"`)
}

func TestAuthOK(t *testing.T) {
	is := is.New(t)
	for _, tt := range []struct {
		body AuthOKBody
		text string
	}{
		{AuthOKBody{}, `{}`},
		{AuthOKBody{Reply: []byte(`1`), Expires: 60000}, `{"reply":1,"expires":60000}`},
		{AuthOKBody{Error: &ErrorBody{}}, `{"error":{"code":0}}`},
		{
			AuthOKBody{Error: &ErrorBody{Code: 16, Message: "m", Data: []byte(`[]`), RetryAfter: 5}},
			`{"error":{"code":16,"message":"m","data":[],"retryAfter":5}}`,
		},
	} {
		is.Equal(string(tt.body.Append(nil)), tt.text)
		got, err := ParseAuthOK([]byte(tt.text))
		is.NoErr(err)
		is.Equal(string(got.Append(nil)), tt.text)
		is.Equal(got.Error == nil, tt.body.Error == nil)
	}
}

func TestGoAway(t *testing.T) {
	is := is.New(t)
	in := GoAwayBody{Reason: "restart", Min: 100, Max: 5000}
	text := in.Append(nil)
	is.Equal(string(text), `{"reason":"restart","min":100,"max":5000}`)
	got, err := ParseGoAway(text)
	is.NoErr(err)
	is.Equal(got, in)

	in = GoAwayBody{Reason: "banned", Error: &ErrorBody{Code: 7, Message: "banned", Data: []byte(`{"until":3}`), Fault: "chat.banned", RetryAfter: 5}}
	text = in.Append(nil)
	is.Equal(string(text), `{"reason":"banned","error":{"code":7,"message":"banned","data":{"until":3},"fault":"chat.banned","retryAfter":5}}`)
	got, err = ParseGoAway(text)
	is.NoErr(err)
	is.Equal(got, in)
	_, err = ParseGoAway([]byte(`{"error":3}`))
	is.True(err != nil)
}

func TestHandshake_refuses(t *testing.T) {
	parse := map[string]func([]byte) error{
		"HELLO":   func(b []byte) error { _, err := ParseHello(b); return err },
		"WELCOME": func(b []byte) error { _, err := ParseWelcome(b); return err },
		"AUTH":    func(b []byte) error { _, err := ParseAuth(b); return err },
		"AUTH_OK": func(b []byte) error { _, err := ParseAuthOK(b); return err },
		"GOAWAY":  func(b []byte) error { _, err := ParseGoAway(b); return err },
	}
	tests := []struct{ body, text string }{
		{"HELLO", `{"attempt":"1"}`},
		{"HELLO", `{"attempt":-1}`},
		{"HELLO", `{"token":null}`},
		{"HELLO", `{"received":1.5}`},
		{"HELLO", `{"limits":[]}`},
		{"HELLO", `{"limits":{"message":"1"}}`},
		{"HELLO", `{"limits":{"calls":true}}`},
		{"HELLO", `{"limits":{"window":1,"window":1}}`},
		{"HELLO", `{"cache":1}`},
		{"HELLO", `{"cache":"a","cache":"a"}`},
		{"HELLO", `{"features":{}}`},
		{"HELLO", `{"features":[1]}`},
		{"HELLO", `{"features":[""` + strings.Repeat(`,""`, maxFeatures) + `]}`},
		{"WELCOME", `{"token":1}`},
		{"WELCOME", `{"resumed":"true"}`},
		{"WELCOME", `{"reason":[]}`},
		{"WELCOME", `{"received":null}`},
		{"WELCOME", `{"limits":1}`},
		{"WELCOME", `{"features":"a"}`},
		{"WELCOME", `{"keepalive":1e3}`},
		{"WELCOME", `{"cache":null}`},
		{"AUTH_OK", `{"expires":""}`},
		{"AUTH_OK", `{"error":"no"}`},
		{"AUTH_OK", `{"error":null}`},
		{"AUTH_OK", `{"error":{"code":1.5}}`},
		{"AUTH_OK", `{"error":{"message":1}}`},
		{"AUTH_OK", `{"error":{"retryAfter":-1}}`},
		{"GOAWAY", `{"reason":1}`},
		{"GOAWAY", `{"min":"1"}`},
		{"GOAWAY", `{"max":-1}`},
	}
	for name := range parse {
		for _, text := range []string{``, `[]`, `null`, `{`, `{"x":1,"x":1}`, `{} {}`, "\uFEFF{}", strings.Repeat(`{"x":`, 100_000)} {
			tests = append(tests, struct{ body, text string }{name, text})
		}
	}
	for _, tt := range tests {
		t.Run(tt.body+" "+tt.text[:min(len(tt.text), 40)], func(t *testing.T) {
			is := is.New(t)
			err := parse[tt.body]([]byte(tt.text))
			is.True(errors.Is(err, ErrMalformed))
			is.True(strings.HasPrefix(err.Error(), tt.body+": ")) // says which
		})
	}
}
