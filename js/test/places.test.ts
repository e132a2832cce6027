// What waits for a place, or for room, and what does not wait for it.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Code, type Conn, call, handle, handleServerStream, method, open, receive, serve, serverStream } from "../src/index.js";
import { Flag, Kind, Type, makeFrame } from "../src/wire/frame.js";
import * as api from "./api.js";
import { startRaw } from "./raw.js";
import { type GoServer, closeAll, dial, failure, startServer, until } from "./server.js";

let server: GoServer;

before(async () => {
  server = await startServer();
});
after(() => server.stop());
afterEach(closeAll);

/** Opens streams that stay open until they are canceled. */
const openAll = (conn: Conn, count: number) => Array.from({ length: count }, () => open(conn, api.doubles, "x"));

describe("places", () => {
  test("an eighth is for calls: streams that wait for one stop no call", async () => {
    const conn = dial(server.url("/few"));
    const streams = openAll(conn, 9); // seven have a place
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    const echoed = async (stream: (typeof streams)[number]) => {
      await stream.send(4);
      for await (const item of stream) return item;
      return undefined;
    };
    assert.deepEqual(await Promise.all(streams.slice(0, 7).map(echoed)), Array(7).fill(8));
    const waiting = Promise.all(streams.slice(7).map(echoed));
    for (const stream of streams.slice(0, 2)) stream.end(); // their places go to those that wait
    assert.deepEqual(await waiting, [8, 8]);
  });
  test("a stream of one place's server has that one", async () => {
    const raw = await startRaw(() => ({ limits: { calls: 1 } }));
    const conn = dial(raw.url);
    void failure(receive(conn, api.endless, "").next() as Promise<unknown>);
    await until(() => raw.frames.length === 1);
    assert.equal(raw.frames[0]!.method, "endless");
    await conn.close().finally(() => raw.stop());
  });
  test("what finds no place says which are taken", async () => {
    const conn = dial(server.url("/few"));
    await until(() => conn.state.state === "connected");
    openAll(conn, 7);
    const stream = await failure(receive(conn, api.endless, "", { timeout: 100 }).next() as Promise<unknown>);
    assert.deepEqual([stream.code, stream.outcome], [Code.DeadlineExceeded, "notSent"]);
    assert.match(stream.message, /all 7 places that streams may have are taken/);
    const stop = new AbortController();
    const last = failure(call(conn, api.wait, 60_000, { signal: stop.signal }));
    const none = await failure(call(conn, api.wait, 1, { timeout: 100 }));
    assert.match(none.message, /all 8 places are taken, 7 of them by streams/);
    assert.equal(none.outcome, "notSent");
    stop.abort();
    await last;
  });
  test("a call of a handler says so, and does not wait", async () => {
    const raw = await startRaw(() => ({ limits: { calls: 2 } }));
    const conn = dial(raw.url);
    void failure(receive(conn, api.endless, "").next() as Promise<unknown>);
    void failure(call(conn, api.wait, 1));
    await until(() => raw.frames.length === 2);
    const asked = new Promise((resolve) => {
      serve(
        conn,
        handle(api.greet, async (_, context) => {
          resolve(await failure(call(context, api.multiply, { A: 1, B: 1 })));
          return "";
        }),
      );
    });
    raw.send(makeFrame(Type.Call, { id: 1, method: "page.greet", fromCaller: true }));
    const error = (await asked) as Awaited<ReturnType<typeof failure>>;
    assert.deepEqual([error.code, error.outcome], [Code.ResourceExhausted, "notSent"]);
    assert.match(error.message, /all 2 places are taken, 1 of them by streams/);
    await conn.close().finally(() => raw.stop());
  });
  test("a large call that waits for room holds up no small one, and is not held up for ever", async () => {
    const raw = await startRaw(() => ({ limits: { budget: 40_000 } }));
    const conn = dial(raw.url);
    const seen = (id: number) => raw.frames.some((frame) => frame.type === Type.Call && frame.id === id);
    const names = () => raw.frames.filter(({ type }) => type === Type.Call).map((frame) => frame.metadata.name);
    const make = (name: string, bytes: number) =>
      call(conn, api.echo, name, { metadata: { name, pad: "x".repeat(bytes) } }).catch(() => undefined);
    void make("first", 15_000);
    void make("second", 15_000);
    void make("large", 15_000); // 10 kB are left
    for (let i = 0; i < 10; i++) void make(`small ${i}`, 4_000);
    await until(() => seen(4));
    // Two pass it: more than a small part of the budget is not taken in front of what waits.
    assert.deepEqual(names(), ["first", "second", "small 0", "small 1"].slice(0, names().length));
    assert.ok(names().length >= 3);
    raw.send(makeFrame(Type.Result, { id: 1 }));
    await until(() => names().includes("large"));
    await conn.close().finally(() => raw.stop());
  });
  test("serial calls do not pass each other", async () => {
    const raw = await startRaw(() => ({ limits: { budget: 40_000 } }));
    const conn = dial(raw.url);
    const serial = method<string, string>("serial", { serial: true });
    const make = (declared: typeof serial, name: string, bytes: number) =>
      call(conn, declared, name, { metadata: { name, pad: "x".repeat(bytes) } }).catch(() => undefined);
    const others = method<string, string>("others");
    void make(others, "first", 15_000);
    void make(others, "second", 15_000);
    void make(serial, "large", 15_000);
    void make(serial, "behind", 100);
    void make(others, "free", 100);
    const names = () => raw.frames.filter(({ type }) => type === Type.Call).map((frame) => frame.metadata.name);
    await until(() => names().includes("free"));
    assert.deepEqual(names(), ["first", "second", "free"]);
    raw.send(makeFrame(Type.Result, { id: 1 }));
    await until(() => names().includes("behind"));
    assert.deepEqual(names(), ["first", "second", "free", "large", "behind"]);
    await conn.close().finally(() => raw.stop());
  });
  test("a peer's streams are refused beyond theirs, and its calls are not", async () => {
    const raw = await startRaw();
    const conn = dial(raw.url, { limits: { calls: 8 } });
    const feed = serverStream<null, number>("page.endless");
    serve(
      conn,
      handleServerStream(feed, async function* (_, { signal }) {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        yield 1;
      }),
      handle(api.greet, () => "hello"),
    );
    await until(() => conn.state.state === "connected");
    const streams = Array.from({ length: 8 }, (_, i) =>
      makeFrame(Type.Call, { id: i + 1, method: "page.endless", flags: Kind.ServerStream | Flag.NoItems, fromCaller: true }),
    );
    raw.send(...streams, makeFrame(Type.Call, { id: 9, method: "page.greet", fromCaller: true }));
    await until(() => raw.frames.length === 2);
    assert.deepEqual(
      raw.frames.map(({ type, id, flags, code }) => ({ type, id, flags, code })),
      [
        { type: Type.Fail, id: 8, flags: Flag.NotRun, code: Code.ResourceExhausted },
        { type: Type.Result, id: 9, flags: 0, code: 0 },
      ],
    );
    await conn.close().finally(() => raw.stop());
  });
});
