package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/typedrpc/typedrpc/cmd/typedrpc/test/awkward"
)

// TestRoundTrip has tsc check the JSON of values of awkward types as literals of the
// types that are generated, in both forms, and sends the values to Node and back.
func TestRoundTrip(t *testing.T) {
	node := node(t)
	dir := build(t, node)
	client, problems := generate(t, "ts", "-map", pointFlag, "./awkward")
	if problems != "" {
		t.Errorf("reported:\n%s", problems)
	}
	forms := []string{filepath.Join(dir, "ts"), filepath.Join(dir, "js")}
	for _, form := range forms {
		if err := os.Mkdir(form, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(forms[0], "client.ts"), client)
	generate(t, "ts", "-map", pointFlag, "./awkward", "-o", filepath.Join(forms[1], "client.js"))

	samples := awkward.Samples()
	methods := map[string]bool{}
	var check strings.Builder
	check.WriteString("import type { Method } from \"@typedrpc/client\";\nimport * as api from \"./client.js\";\n\n" +
		"const request = <T>(_: Method<T, unknown>, value: NoInfer<T>): T => value;\n" +
		"export const values = [\n")
	for _, s := range samples {
		methods[s.Var] = true
		fmt.Fprintf(&check, "  request(api.%s, %s),\n", constant(s.Var), s.JSON)
	}
	check.WriteString("];\n")
	if len(methods) < 80 {
		t.Errorf("there are samples of %d types", len(methods))
	}
	if all := strings.Count(client, "(\"echo."); all != len(methods) {
		t.Errorf("%d methods are declared, and %d have samples", all, len(methods))
	}
	for _, form := range forms {
		write(t, filepath.Join(form, "check.ts"), check.String())
		write(t, filepath.Join(form, "wrong.ts"), wrong)
	}
	command(t, node, "npx", "tsc")
	command(t, node, "npx", "eslint", "build/ts/client.ts", "build/js/client.d.ts")

	back := echo(t, node, samples)
	for i, s := range samples {
		if err := s.Returns(back[i]); err != nil {
			t.Error(err)
		}
	}
}

// echo has Node read the samples and write them back.
func echo(t *testing.T, node string, samples []awkward.Sample) [][]byte {
	t.Helper()
	cmd := exec.Command("node", "echo.mjs")
	cmd.Dir = node
	var in bytes.Buffer
	for _, s := range samples {
		in.Write(append(s.JSON, '\n'))
	}
	cmd.Stdin = &in
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
	if len(lines) != len(samples) {
		t.Fatalf("%d values came back of %d", len(lines), len(samples))
	}
	return lines
}

// constant is the name of a method's constant.
func constant(variable string) string { return strings.ToLower(variable[:1]) + variable[1:] }

// wrong is what tsc must refuse: of each line that it accepts it reports the
// directive above.
const wrong = `import { type Conn, call } from "@typedrpc/client";
import * as api from "./client.js";

declare const conn: Conn;
const client = api.newClient(conn);

// @ts-expect-error: a member is missing
export const a = client.echo.untagged({ Name: "n" });
// @ts-expect-error: a member is unknown
export const b = client.echo.untagged({ Name: "n", Count: 1, count: 1 });
// @ts-expect-error: no such value
export const c = client.echo.color("purple");
// @ts-expect-error: no such number
export const d = client.echo.kind(3);
// @ts-expect-error: null where there is no pointer
export const e = client.echo.text(null);
// @ts-expect-error: a number in place of a quoted one
export const f = client.echo.quoted({ int: 1, int64: "1", uint64: "1", float: "1", bool: "true", string: "", pointer: null, named: "1", slice: null });
// @ts-expect-error: a text that is no number
export const g = client.echo.quoted({ int: "one", int64: "1", uint64: "1", float: "1", bool: "true", string: "", pointer: null, named: "1", slice: null });
// @ts-expect-error: two numbers in place of three
export const h = client.echo.numbers([1, 2]);
// @ts-expect-error: a nil slice is null, and may not be overlooked
export const i = (await client.echo.strings(["a"])).length;
// @ts-expect-error: the answer is a number
export const j: string = await client.echo.int(1);
// @ts-expect-error: no such method
export const k = client.echo.nobody;
// @ts-expect-error: the request is of another type
export const l = call(conn, api.echoInt, "1");
// @ts-expect-error: a field that the tag leaves out
export const m = client.echo.names({ Skipped: 1 });
// @ts-expect-error: nil is missing, and never null
export const n = client.echo.list({ head: 1, tail: null });
// @ts-expect-error: the handler's answer is of another type
client.serve({ confirm: (question) => question });
// @ts-expect-error: the item is of another type
client.shop.fill(["purple"]);
// @ts-expect-error: a topic's key is a string
client.chat.room(1);
// @ts-expect-error: nobody tells who subscribes
client.prices.presence("key");

// What is right.
client.serve({
  confirm: async (question, context) => question !== "" && !context.signal.aborted,
  ticks: function* (symbol) {
    yield { Name: symbol, Count: 1 };
  },
});
for await (const tick of client.market.ticks("plums", { restart: (symbol, last) => last?.Name ?? symbol })) tick.Count satisfies number;
for await (const { value } of client.chat.room("lobby")) value?.left satisfies number | undefined;
(await client.shop.fill(["red", api.Color.Green])) satisfies number;
(await client.shop()) satisfies object;
(await (await client.files.get()).bytes()).length satisfies number;
api.noStock.from(new Error("another"))?.left satisfies number | undefined;
api.signIn(() => ({ left: 1 })).reply?.Name satisfies string | undefined;
`
