// What a page was built from, beside what its server was.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, afterEach, before, describe, test } from "node:test";
import { call, schema, signIn } from "../src/index.js";
import * as api from "./api.js";
import { startRaw } from "./raw.js";
import { type GoServer, Proxy, closeAll, dial, startServer, until } from "./server.js";

let server: GoServer;
let proxy: Proxy;

before(async () => {
  server = await startServer();
  proxy = await new Proxy(server.address).start();
});
after(() => {
  proxy.stop();
  server.stop();
});
afterEach(closeAll);

/** What typedrpc ts writes of names and fingerprints. */
const generated = (fingerprints: Record<string, string>) =>
  Object.fromEntries(Object.entries(fingerprints).map(([name, fingerprint]) => [name, digits(name) + fingerprint.slice(0, 6)]));
const digits = (name: string) => createHash("sha256").update(name).digest("hex").slice(0, 10);
const base64 = (hex: string) => Buffer.from(hex, "hex").toString("base64");

/** What the server's are, as in internal/e2e/jsserver, and some that it has no schema of. */
const same = { "math.multiply": "00112233", numbers: "8899aabb", room: "44556677", echo: "01020304", gone: "01020304" };

/** What the console is told while a test runs. */
function listen(t: { after(fn: () => void): void }): unknown[][] {
  const { warn } = console;
  const told: unknown[][] = [];
  console.warn = (...all) => told.push(all);
  t.after(() => (console.warn = warn));
  return told;
}

describe("a schema", () => {
  test("that is the server's is not mentioned", async (t) => {
    const told = listen(t);
    const conn = dial(server.url("/described"), { schema: schema(generated(same), (names) => told.push(names)) });
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    assert.deepEqual(told, []);
  });
  test("whose names differ is told, once, and all goes on", async () => {
    const told: string[][] = [];
    const differing = schema(generated({ ...same, room: "44557788", "math.multiply": "10112233" }), (names) => told.push(names));
    const conn = dial(proxy.url("/described"), { schema: differing, limits: { grace: 0 }, backoff: { max: 20 } });
    for (let sessions = 1; sessions <= 3; sessions++) {
      assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
      assert.deepEqual(told, [["math.multiply", "room"]]);
      const { links } = proxy;
      proxy.cut();
      await until(() => proxy.links > links); // it may wait for less than a look at its state takes
    }
  });
  test("tells the console in the Go client's words", async (t) => {
    const told = listen(t);
    const conn = dial(server.url("/described?secret=1"), { schema: schema(generated({ ...same, numbers: "0899aabb" })) });
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    assert.deepEqual(told, [["typedrpc: the peer's schema differs", { names: ["numbers"], differ: 1, remote: server.url("/described") }]]);
  });
  test("is nothing to a server that has none", async (t) => {
    const told = listen(t);
    const conn = dial(server.url(), { schema: schema(generated({ ...same, room: "00000000" })) });
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    assert.deepEqual(told, []);
  });
});

describe("HELLO has of a schema", () => {
  const hello = async (t: { after(fn: () => void): void }, options: Parameters<typeof dial>[1]) => {
    const raw = await startRaw();
    t.after(() => raw.stop());
    const conn = dial(raw.url, options);
    await until(() => conn.state.state === "connected");
    return raw.hellos[0]!;
  };
  test("its pairs, in order and without padding", async (t) => {
    const { schema: sent } = await hello(t, { schema: schema(generated(same)) });
    const pairs = Object.values(generated(same)).sort();
    assert.equal(sent, base64(pairs.join("")).replace(/=*$/, ""));
    assert.doesNotMatch(sent, /=/);
  });
  test("nothing, where there is none", async (t) => {
    assert.equal("schema" in (await hello(t, {})), false);
    assert.equal("schema" in (await hello(t, { schema: schema({}) })), false);
  });
  test("2,048 names at most, the smallest", async (t) => {
    const many = generated(Object.fromEntries(Array.from({ length: 2_100 }, (_, n) => [`name${n}`, "00112233"])));
    const { schema: sent } = await hello(t, { schema: schema(many) });
    assert.equal(Buffer.from(sent as string, "base64").toString("hex"), Object.values(many).sort().slice(0, 2_048).join(""));
  });
  test("nothing beside large credentials", async (t) => {
    const many = generated(Object.fromEntries(Array.from({ length: 2_048 }, (_, n) => [`name${n}`, "00112233"])));
    for (const [size, there] of [
      [30_000, true],
      [36_000, false],
    ] as const) {
      const sent = await hello(t, { schema: schema(many), signIn: signIn(() => "x".repeat(size)) });
      assert.equal("schema" in sent, there);
      assert.equal((sent.credentials as string).length, size);
    }
  });
});

describe("WELCOME has of a schema", () => {
  const answers: Record<string, [answer: string, told: boolean]> = {
    "what differs": [base64(`${digits("echo")}ffffff`).replace(/=*$/, ""), true],
    "what does not": [base64(`${digits("echo")}010203`), false],
    "a name that is not ours": [base64(`${digits("others")}ffffff`), false],
    "half a pair": [base64(`${digits("echo")}ffffff00`), false],
    "no base64": [`${base64(`${digits("echo")}ffffff`).slice(0, 8)}!`, false],
  };
  for (const [name, [answer, differs]] of Object.entries(answers)) {
    test(name, async (t) => {
      const told: string[][] = [];
      const raw = await startRaw(() => ({ schema: answer }));
      t.after(() => raw.stop());
      const conn = dial(raw.url, { schema: schema(generated(same), (names) => told.push(names)) });
      await until(() => conn.state.state === "connected");
      await new Promise<void>((resolve) => queueMicrotask(resolve));
      assert.deepEqual(told, differs ? [["echo"]] : []);
    });
  }
  test("what is no text is malformed", async (t) => {
    const raw = await startRaw(() => ({ schema: 5 }));
    t.after(() => raw.stop());
    await dial(raw.url).done;
    await until(() => raw.codes.length);
    assert.deepEqual(raw.codes, [4400]);
  });
});
