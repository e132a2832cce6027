package cli

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares got with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	is := is.New(t)
	path := filepath.Join("testdata", name)
	if *update {
		is.NoErr(os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	is.NoErr(err)
	is.Equal(got, string(want))
}

// The document of the tests is what their package declares.
func TestShop_fresh(t *testing.T) {
	var r session
	if n := r.run(t.Context(), "schema", "./testdata/shop", "-o", "testdata/shop.json", "-title", "Shop", "-check"); n != 0 {
		t.Error(r.err.String())
	}
}

// What is listed and described is the same of a server and of a file, but for the URL.
func TestLook(t *testing.T) {
	s := open(t)
	for name, args := range map[string][]string{
		"list.txt": {"list"}, "list.jsonl": {"list", "-json"}, "describe.txt": {"describe"}, "describe.jsonl": {"describe", "-json"},
	} {
		t.Run(name, func(t *testing.T) {
			is := is.New(t)
			var file, server session
			is.Equal(file.run(t.Context(), append(args, "-schema", "testdata/shop.json")...), 0)
			golden(t, name, file.out.String())
			is.Equal(server.run(t.Context(), append(args, s.url)...), 0)
			if name == "describe.jsonl" { // the server adds who handles each
				is.Equal(strings.Count(server.out.String(), `"handler":"server"`), strings.Count(file.out.String(), "\n")-2) // but the client's, and the fault
				return
			}
			is.Equal(strings.ReplaceAll(server.out.String(), s.url, "localhost:8080/rpc"), file.out.String())
			is.Equal(server.err.String()+file.err.String(), "")
		})
	}
}

// A line of a description can be pasted as it is.
func TestDescribe_lineRuns(t *testing.T) {
	is := is.New(t)
	s := open(t)
	var r session
	is.Equal(r.run(t.Context(), "describe", s.url, "shop.buy"), 0)
	lines := strings.Split(strings.TrimSpace(r.out.String()), "\n")
	line := strings.Fields(strings.ReplaceAll(lines[len(lines)-1], "'", ""))
	is.Equal(line[0], "typedrpc")
	var call session
	is.Equal(call.run(t.Context(), line[1:]...), 0)
	is.Equal(call.out.String(), "0\n")
}

// What is asked for and not there, and what is no document, is told.
func TestLook_fails(t *testing.T) {
	s := open(t)
	none := filepath.Join(t.TempDir(), "none.json")
	if err := os.WriteFile(none, []byte(`{"openrpc":"1.3.2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		err    string
		status int
	}{
		{[]string{"describe", s.url, "shop.tick"}, "did you mean shop.ticks", 76},
		{[]string{"describe", "-schema", "testdata/shop.json", "price"}, "did you mean shop.price?", 76},
		{[]string{"list"}, "-schema file", 2},
		{[]string{"list", "-schema", "nowhere"}, "nowhere", 2},
		{[]string{"list", "-schema", "testdata/items.jsonl"}, "no OpenRPC document", 2},
		{[]string{"list", "-schema", none}, "no list of methods", 2},
		{[]string{"list", s.url, "-codec", "msgp"}, "400 Bad Request", 64 + 3}, // the server has no such codec
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var r session
			if n := r.run(t.Context(), tt.args...); n != tt.status || !strings.Contains(r.err.String(), tt.err) {
				t.Errorf("status %d: %s", n, r.err.String())
			}
			if r.out.String() != "" {
				t.Errorf("it prints %s", r.out.String())
			}
		})
	}
}

// A document of somebody else, without what typedrpc says of itself, is read too.
func TestParse_foreign(t *testing.T) {
	is := is.New(t)
	d, err := parse([]byte(`{"openrpc":"1.2.6","methods":[
		{"name":"add","params":[{"name":"a","required":true,"schema":{"type":"integer"}},{"name":"note","schema":{"type":"string"}}],"result":{"name":"sum","schema":{"type":["integer","null"]}}},
		{"name":"log","params":[]}]}`))
	is.NoErr(err)
	is.Equal(d.describe(&d.Methods[0], ""), "add  method\n\n  request   {a: integer, note: string}\n  response  integer or null\n\n  typedrpc call localhost:8080/rpc add '{\"a\":0}'\n")
	is.Equal(d.describe(&d.Methods[1], "x:1"), "log  notification\n\n  (its types are not told)\n\n  typedrpc notify x:1 log\n")
}

// A server without a schema tells kinds and traits alone: nothing is made up.
func TestParse_untold(t *testing.T) {
	is := is.New(t)
	d, err := parse([]byte(`{"openrpc":"1.3.2","methods":[
		{"name":"buy","paramStructure":"by-position","params":[{"name":"request","schema":{}}],"result":{"name":"response","required":true,"schema":{}},"x-typedrpc":{"kind":"method","handler":"server","safe":true}},
		{"name":"minus","paramStructure":"either","params":[{"name":"a","schema":{}},{"name":"b","schema":{}}],"result":{"name":"response","required":true,"schema":{}},"x-typedrpc":{"kind":"method","handler":"server"}}]}`))
	is.NoErr(err)
	is.Equal(d.describe(&d.Methods[0], ""), "buy  method, safe\n\n  (its types are not told)\n\n  typedrpc call localhost:8080/rpc buy REQUEST\n")
	is.True(strings.Contains(d.describe(&d.Methods[1], ""), "{a: anything, b: anything}"))
}

func TestLike(t *testing.T) {
	is := is.New(t)
	all := []string{"shop.price", "shop.prices", "shop.buy", "customer.confirm", "a"}
	for name, want := range map[string]string{
		"shop.prise": "shop.price shop.prices", "Shop.Price": "shop.price shop.prices", "shop.ubuy": "shop.buy", "hsop.buy": "shop.buy",
		"price": "shop.price", "buy": "shop.buy", "zzz": "", "customer": "customer.confirm", "confrm": "",
	} {
		if got := strings.Join(like(name, all), " "); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	is.Equal(distance("", "abc"), 3)
	is.Equal(distance("abcd", "acbd"), 1) // swapped
	is.Equal(distance("kitten", "sitting"), 3)
}

// Names complete behind a URL, and of a file, by the kinds that the command is for.
func TestComplete(t *testing.T) {
	s := open(t)
	for _, tt := range [][2]string{
		{"call URL ", "shop.buy\tBuy answers the total in cents.\nshop.price\tPrice answers the price of an item. It is in cents.\nshop.slow\tSlow answers when its caller has gone.\nshop.whoami\tWhoAmI answers what the server knows of its caller.\n"},
		{"subscribe URL ", "shop.news\tNews are what everybody hears.\n"},
		{"notify -schema testdata/shop.json URL ", "shop.viewed\tViewed tells the shop what a customer looks at.\n"},
		{"open URL ", "shop.talk\tTalk answers in capitals.\n"},
		{"call ", ""},
		{"call 127.0.0.1:1 ", ""},
		{"describe -schema testdata/shop.json shop.t", "customer.confirm\tConfirm asks a customer.\nshop.buy"},
		{"call URL shop.price -dialect ", "binary\ntext\njsonrpc\n"},
		{"rece", "receive\t"},
	} {
		t.Run(tt[0], func(t *testing.T) {
			is := is.New(t)
			r := session{}
			is.Equal(r.run(t.Context(), append([]string{"__complete"}, strings.Split(strings.ReplaceAll(tt[0], "URL", s.url), " ")...)...), 0)
			if got := r.out.String(); !strings.HasPrefix(got, tt[1]) {
				t.Errorf("%s", got)
			}
		})
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		is := is.New(t)
		var r session
		is.Equal(r.run(t.Context(), "completion", shell), 0)
		is.True(strings.Contains(r.out.String(), "__complete"))
	}
}

// Each command's help has examples, and goes to standard output.
func TestHelp(t *testing.T) {
	is := is.New(t)
	for _, cmd := range (&Env{}).root().Commands() {
		var r session
		is.Equal(r.run(t.Context(), cmd.Name(), "-help"), 0)
		is.True(strings.Contains(r.out.String(), "Examples:\n")) // of each
		is.Equal(r.err.String(), "")
	}
	var r session
	is.Equal(r.run(t.Context()), statusUsage)
	is.True(strings.Contains(r.err.String(), "Talk to it:"))
	r = session{}
	is.Equal(r.run(t.Context(), "cal", "x"), statusUsage)
	is.Equal(r.err.String(), "typedrpc: there is no command \"cal\": did you mean call?; \"typedrpc help\" says more\n")
}
