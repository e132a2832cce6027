package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/matryer/is"

	"github.com/typedrpc/typedrpc"
	"github.com/typedrpc/typedrpc/topic"
)

// Every command, what it prints, what it says beside that, and its status. URL is the
// shop's.
var runs = []struct {
	name, args, in string
	out, err       string
	status         int
}{
	{"call", `call URL shop.price "apples"`, "", "600\n", "", 0},
	{"without a request", `call URL shop.whoami`, "", `{"meta":"","subject":""}` + "\n", "", 0},
	{"of standard input", `call URL shop.buy -`, "{\"item\":\"plum\",\n\"count\":2}\n", "800\n", "", 0},
	{"of a file", `call URL shop.buy @testdata/order.json`, "", "800\n", "", 0},
	{"over text", `call URL shop.price "apples" -dialect text`, "", "600\n", "", 0},
	{"as any server", `call URL shop.price "apples" -dialect jsonrpc`, "", "600\n", "", 0},
	{"metadata", `call URL shop.whoami -meta k=v`, "", `{"meta":"v","subject":""}` + "\n", "", 0},
	{"a header", `call URL shop.whoami -H X-Who:ann`, "", `{"meta":"","subject":"ann"}` + "\n", "", 0},
	{"credentials", `call URL shop.whoami -credentials "bob"`, "", `{"meta":"","subject":"bob"}` + "\n", "", 0},
	{"compressed", `call URL shop.price "apples" -compress`, "", "600\n", "", 0},

	{"not found", `call URL shop.price ""`, "", "", "typedrpc: not found\n", 64 + 5},
	{"a fault", `call URL shop.buy {"item":"plum","count":4}`, "", "", "typedrpc: failed precondition: only 3 are left\n  fault: shop.out-of-stock\n  data: {\"left\":3}\n", 64 + 9},
	{"a fault as JSON", `call URL shop.buy {"item":"plum","count":4} -json`, "", "", `{"error":{"status":73,"code":9,"name":"failed precondition","message":"only 3 are left","outcome":"answered","fault":"shop.out-of-stock","data":{"left":3}}}` + "\n", 64 + 9},
	{"no such method", `call URL shop.prise 1`, "", "", "typedrpc: unimplemented: no method \"shop.prise\" (not sent)\n  did you mean shop.price?\n", 64 + 12},
	{"no such method as JSON", `call URL shop.prise 1 -json`, "", "", `{"error":{"status":76,"code":12,"name":"unimplemented","message":"no method \"shop.prise\"","outcome":"not sent","didYouMean":["shop.price"]}}` + "\n", 64 + 12},
	{"another kind", `call URL shop.ticks 1`, "", "", "did you mean typedrpc receive (shop.ticks is a server stream)?\n", 64 + 12},
	{"of clients", `call URL customer.confirm "x"`, "", "", "did you mean another name (customer.confirm is for the server to call)?\n", 64 + 12},
	{"a wrong type", `call URL shop.price 1`, "", "", "typedrpc: invalid argument: ", 64 + 3},
	{"wrong credentials", `call URL shop.price "a" -token wrong-s3cret`, "", "", "typedrpc: unauthenticated", 64 + 16},
	{"nobody there", `call 127.0.0.1:1/rpc shop.price "a"`, "", "", "connection refused (not sent)\n", 64 + 14},
	{"no JSON", `call URL shop.price apples`, "", "", `(a string has quotes of its own: '"apples"')`, 2},
	{"no file", `call URL shop.price @nowhere`, "", "", "nowhere", 2},
	{"no such dialect", `call URL shop.price "a" -dialect morse`, "", "", "-dialect is binary, text or jsonrpc", 2},
	{"credentials to any server", `call URL shop.price "a" -dialect jsonrpc -credentials "ann"`, "", "", "carries no -credentials", 2},
	{"metadata to any server", `call URL shop.price "a" -dialect jsonrpc -meta k=v`, "", "", "no -meta", 2},
	{"another codec as text", `call URL shop.price "a" -dialect text -codec msgp`, "", "", "takes no -codec", 2},
	{"a reserved name", `call URL rpc.ping`, "", "", "is reserved", 2},
	{"too few arguments", `call URL`, "", "", `the arguments are "url method [request]", and one is given; "typedrpc help call" says more`, 2},

	{"notify", `notify URL shop.viewed "apples"`, "", "", "", 0},
	{"notify nobody", `notify URL shop.view "apples"`, "", "", "typedrpc: unimplemented: there is no notification \"shop.view\" (not sent)\n  did you mean shop.viewed?\n", 64 + 12},
	{"notify a method", `notify URL shop.price "apples"`, "", "", "did you mean typedrpc call (shop.price is a method)?\n", 64 + 12},
	{"a negative number", `call URL shop.price -1 -json`, "", "", `"code":3`, 64 + 3},
	{"receive", `receive URL shop.ticks 3`, "", "0\n1\n2\n", "", 0},
	{"receive some", `receive URL shop.ticks 1000000000 -n 2`, "", "0\n1\n", "", 0},
	{"send", `send URL shop.sum 100`, "1 2\n3", "106\n", "", 0},
	{"send a file", `send URL shop.sum 0 -items testdata/items.jsonl`, "", "6\n", "", 0},
	{"send no JSON", `send URL shop.sum 0`, "1 2 three", "", "typedrpc: item 3: invalid character", 2},
	{"send half a value", `send URL shop.sum 0`, `1 [2`, "", "in the middle of a JSON value", 2},
	{"send twice of standard input", `send URL shop.sum -`, "1", "", "cannot both come from standard input", 2},
	{"open", `open URL shop.talk "ann"`, `"how" "are you"`, "\"hello ann\"\n\"HOW\"\n\"ARE YOU\"\n", "", 0},
	{"open with lines", `open URL shop.talk "ann" -lines`, "how\r\nare you", "\"hello ann\"\n\"HOW\"\n\"ARE YOU\"\n", "", 0},
	{"open with no JSON", `open URL shop.talk "ann"`, "how", "", "typedrpc: item 1: invalid character", 2},
	{"subscribe", `subscribe URL shop.news lobby -n 2`, "", "\"one\"\n\"two\"\n", "", 0},
	{"subscribe to events", `subscribe URL shop.news lobby -n 1 -events`, "", `{"value":"one","history":true}` + "\n", "", 0},
	{"presence", `subscribe URL shop.news porch -n 1 -presence`, "", `{"subject":"eve","history":true}` + "\n", "", 0},
	{"no such topic", `subscribe URL shop.new lobby`, "", "", "did you mean shop.news", 64 + 12},
}

func TestRuns(t *testing.T) {
	s := open(t)
	is := is.New(t)
	for _, m := range []string{"one", "two"} {
		is.NoErr(topic.Publish(t.Context(), &s.hub, news, "lobby", m))
	}
	is.NoErr(topic.Publish(t.Context(), &s.hub, news, "porch", "one"))
	eve, err := typedrpc.Dial(t.Context(), s.url, &typedrpc.DialOptions{SignIn: typedrpc.NewSignIn[string, string]().Present(func(context.Context) (string, error) { return "eve", nil })})
	is.NoErr(err)
	defer eve.Close()
	here := make(chan bool, 1)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan bool)
	go func() {
		defer close(gone)
		// In a room of her own: the runs' connections to the lobby may be seen to end later.
		for range topic.Subscribe(ctx, eve, news, "porch") {
			select {
			case here <- true:
			default:
			}
		}
	}()
	<-here
	defer func() { leave(); <-gone }()
	for _, tt := range runs {
		t.Run(tt.name, func(t *testing.T) {
			is := is.New(t)
			r := session{in: tt.in}
			args := strings.Split(tt.args, " ")
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "URL", s.url)
			}
			is.Equal(r.run(t.Context(), args...), tt.status)
			if tt.status == 0 || tt.out != "" {
				is.Equal(r.out.String(), tt.out)
			}
			got := r.err.String()
			if tt.err == "" {
				is.Equal(got, "")
			}
			if !strings.Contains(got, tt.err) {
				t.Errorf("it says %s", got)
			}
		})
	}
	is.Equal(<-s.seen, "apples") // and nothing else was notified
	is.Equal(len(s.seen), 0)
}

// -timeout ends it. Whether it says "may have run" is up to who is first: the server knows
// the deadline, too, and its answer is an answer.
func TestTimeout(t *testing.T) {
	is := is.New(t)
	s := open(t)
	var r session
	switch n := r.run(t.Context(), "call", s.url, "shop.slow", "-timeout", "100ms"); n {
	case 64 + 32 + 4:
		is.True(strings.Contains(r.err.String(), "deadline exceeded"))
	case 64 + 4: // it did not even connect, on a machine that is busy
	default:
		t.Errorf("status %d: %s", n, r.err.String())
	}
}

// Ctrl-C ends each command, and what it had asked the server for.
func TestInterrupt(t *testing.T) {
	for _, args := range []string{
		"call URL shop.slow", "receive URL shop.ticks -- -1", "send URL shop.sum 0", `open URL shop.talk "ann"`,
	} {
		t.Run(strings.Fields(args)[0], func(t *testing.T) {
			is := is.New(t)
			s := open(t)
			ctx, interrupt := context.WithCancel(t.Context())
			in, more := io.Pipe() // nobody writes
			defer more.Close()
			var r session
			ended := make(chan int)
			go func() {
				ended <- Main(ctx, &Env{Args: strings.Split(strings.ReplaceAll(args, "URL", s.url), " "), In: in, Out: &r.out, Err: &r.err, Getenv: os.Getenv})
			}()
			<-s.running
			interrupt()
			is.Equal(<-ended, statusInterrupted)
			is.True(strings.HasPrefix(r.err.String(), "typedrpc: interrupted"))
			<-s.ended // the handler, too
		})
	}
	t.Run("subscribe", func(t *testing.T) {
		is := is.New(t)
		s := open(t)
		is.NoErr(topic.Publish(t.Context(), &s.hub, news, "lobby", "one"))
		ctx, interrupt := context.WithCancel(t.Context())
		var r session
		r.out.on = func(string) { interrupt() } // in the middle of it
		is.Equal(r.run(ctx, "subscribe", s.url, "shop.news", "lobby"), statusInterrupted)
		is.Equal(r.out.String(), "\"one\"\n")
	})
}

// A reader that has read enough ends the command, quietly.
func TestPipe(t *testing.T) {
	for _, args := range []string{"receive URL shop.ticks 1000000000", `open URL shop.talk "ann"`, `call URL shop.price "a"`} {
		t.Run(strings.Fields(args)[0], func(t *testing.T) {
			is := is.New(t)
			s := open(t)
			r, w, err := os.Pipe()
			is.NoErr(err)
			is.NoErr(r.Close())
			defer w.Close()
			var problems text
			in, more := io.Pipe()
			defer more.Close()
			n := Main(t.Context(), &Env{Args: strings.Split(strings.ReplaceAll(args, "URL", s.url), " "), In: in, Out: w, Err: &problems, Getenv: os.Getenv})
			is.Equal(n, statusPipe)
			is.Equal(problems.String(), "")
		})
	}
}

// A token comes from a flag, a file or the environment, the server sees it, and nothing
// that is printed has it, whatever happens.
func TestToken(t *testing.T) {
	const secret = "t0ken-s3cret"
	s := open(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args []string
		env  map[string]string
	}{
		"flag":        {args: []string{"-token", secret}},
		"file":        {args: []string{"-token", "@" + file}},
		"environment": {env: map[string]string{tokenEnv: secret}},
		"header":      {args: []string{"-H", "Authorization: Bearer " + secret}, env: map[string]string{tokenEnv: "another"}},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			r := session{env: tt.env}
			is.Equal(r.run(t.Context(), append([]string{"call", s.url, "shop.whoami"}, tt.args...)...), 0)
			is.Equal(r.out.String(), `{"meta":"","subject":"Bearer `+secret+`"}`+"\n") // which the server says
			is.Equal(r.err.String(), "")
		})
	}
	const wrong = "wrong-s3cret"
	for _, args := range [][]string{
		{"call", s.url, "shop.price", `"a"`, "-token", wrong},
		{"call", s.url, "shop.price", `"a"`, "-token", wrong, "-json"},
		{"call", "127.0.0.1:1", "shop.price", `"a"`, "-token", wrong},
		{"call", s.url, "shop.prise", `"a"`, "-token", wrong, "-credentials", `"` + wrong + `"`},
		{"call", s.url, "shop.price", `"a"`, "-token", wrong + "\n" + wrong},
		{"call", s.url, "shop.price", `"a"`, "-H", wrong},
		{"call", s.url, "shop.price", `"a"`, "-credentials", wrong},
		{"list", s.url, "-token", wrong},
		{"call", s.url, "-token", wrong},
		{"help", "call", "-token", wrong},
	} {
		is := is.New(t)
		r := session{env: map[string]string{tokenEnv: wrong}}
		n := r.run(t.Context(), args...)
		is.True(n != 0 || args[0] == "help") // each fails
		is.True(!strings.Contains(r.out.String()+r.err.String(), wrong))
	}
}

// statuses stand for what went wrong, and for how far it went.
func TestStatusOf(t *testing.T) {
	is := is.New(t)
	of := func(code typedrpc.Code, o typedrpc.Outcome) int {
		e := typedrpc.Errorf(code, "no")
		e.Outcome = o
		return statusOf(e)
	}
	is.Equal(statusOf(errors.New("no")), 1)
	for code := typedrpc.Canceled; code <= typedrpc.Unauthenticated; code++ {
		is.Equal(of(code, typedrpc.NotSent), 64+int(code))
		is.Equal(of(code, typedrpc.Answered), 64+int(code))
		is.Equal(of(code, typedrpc.MayHaveRun), 96+int(code))
	}
	for _, code := range []typedrpc.Code{100, 1234, -32000, 0, 17} {
		is.Equal(of(code, typedrpc.Answered), 81)
		is.Equal(of(code, typedrpc.MayHaveRun), 113)
	}
	is.Equal((&Env{Err: io.Discard}).report(t.Context(), failure{&os.PathError{Err: syscall.EPIPE}}), 141)
}

// Another codec's messages are strings in base64.
func TestForeign(t *testing.T) {
	is := is.New(t)
	got, err := foreign("x").Append([]byte("<"), &typedrpc.Raw{'"', 'A', 'A', 'E', '=', '"'})
	is.NoErr(err)
	is.True(bytes.Equal(got, []byte("<\x00\x01")))
	var raw typedrpc.Raw
	is.NoErr(foreign("x").Decode([]byte{0, 1}, &raw))
	is.Equal(string(raw), `"AAE="`)
	_, err = foreign("x").Append(nil, &typedrpc.Raw{'1'})
	is.True(err != nil)
}
