// Calls a Go server with what was generated for it, and is called by it: node live.mjs
// module|typescript ADDRESS, with the samples of live_test.go as lines of input.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import ts from "typescript";
import { WebSocket } from "ws";
import { Code, RpcError, connect, schema } from "./live/typedrpc.js";

const [form, url] = process.argv.slice(2);
if (form === "typescript") {
  const { outputText } = ts.transpileModule(readFileSync("live/typescript.ts", "utf8"), { compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 } });
  writeFileSync("live/typescript.js", outputText);
}
const api = await import(`./live/${form}.js`);

const samples = [];
for await (const line of createInterface({ input: process.stdin })) samples.push(JSON.parse(line));

const who = api.signIn(() => ({ left: 1 }));
let differs;
const older = new Promise((resolve) => (differs = resolve));
const conn = connect(url, { WebSocket, signIn: who, schema: schema(api.fingerprints, differs) });
const client = api.newClient(conn);
const told = {};
told.promise = new Promise((resolve) => (told.resolve = resolve));
client.serve({
  ...Object.fromEntries(samples.map(({ constant }) => [constant, (value) => value])),
  typing: (text) => told.resolve(text),
  confirm(question) {
    if (question === "fault") throw api.noStock.error({ left: 2 });
    return question === "delete it?";
  },
  *all() {
    yield api.Color.Red;
    yield api.Color.Green;
  },
  async fill(request, items) {
    let n = 0;
    for await (const item of items) n += item === api.Color.Red || item === api.Color.Green ? 1 : 1000;
    return n;
  },
  async talk(request, stream) {
    for await (const color of stream) await stream.send(color === api.Color.Green ? api.AwkwardKind.Small : api.AwkwardKind.None);
  },
});

// What the server was built from is newer.
assert.deepEqual(await older, ["nested/find"]);

// The values, called and handled.
for (const { method, value } of samples) assert.deepEqual(await client.echo[method](value), value, method);
assert.equal(await client.nested.find("samples"), samples.length);

// Every kind of declaration.
assert.deepEqual(who.reply, { Name: "hello", Count: 1 });
assert.equal(await client.shop.buyNow({ Name: "plums", Count: 4 }), 8);
assert.equal(await client.shop.delete("it"), true);
assert.equal(await client.shop.delete("that"), false);
let count = 0;
for await (const tick of client.market.ticks("plums")) assert.deepEqual(tick, { Name: "plums", Count: count++ });
assert.equal(count, 100);
for await (const color of client.market.all()) assert.equal(color, api.Color.Blue);
assert.equal(await client.shop.fill([api.Color.Red, api.Color.Green, api.Color.Red]), 3);
assert.equal(await client.shop.pour("water", [new Uint8Array(3), new Uint8Array(4)], { timeout: 60_000 }), 7);
const talk = client.shop.talk("hello");
await talk.send(api.Color.Red);
talk.end();
for await (const kind of talk) assert.equal(kind, api.AwkwardKind.Large);
const messages = client.chat.room("lobby");
const first = messages.next();
for await (const member of client.chat.room.presence("lobby")) {
  assert.equal(member.subject, "visitor 1");
  break;
}
assert.deepEqual(await client.shop(), {});
const { value: event } = await first;
assert.deepEqual(event.value, { left: 7 });
await messages.return();
assert.deepEqual(await client.files.put("name", new Blob(["some text"])), { left: 13 });
assert.equal(new TextDecoder().decode(await (await client.files.get()).bytes()), "a file");
await client.chat.typing("me");
assert.equal(await told.promise, "you, me");

// Faults, both ways, and what the page serves.
const error = await client.nested.find("fault").catch((error) => error);
assert.ok(error instanceof RpcError && error.code === Code.FailedPrecondition, String(error));
assert.deepEqual(api.noStock.from(error), { left: 3 });
assert.equal(api.noStock.from(new Error("another")), undefined);
assert.equal(await client.nested.find("page's fault"), 2);
assert.equal(await client.nested.find("streams"), 200 + "redgreen".length + api.AwkwardKind.Small);

await conn.close();
console.log(`${samples.length} values each way`);
