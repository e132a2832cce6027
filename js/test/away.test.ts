// What fails while a server is away says why.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Code, type ConnectOptions, RpcError, call, handle, notify, receive, serve, signIn } from "../src/index.js";
import * as api from "./api.js";
import { startRaw } from "./raw.js";
import { type GoServer, Proxy, closeAll, dial, failure, own, startServer, until } from "./server.js";

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
afterEach(async () => {
  proxy.down = false;
  await closeAll();
});

/** A connection whose server has gone, after a first attempt to come back. */
async function bereft(options: ConnectOptions = {}) {
  const conn = dial(proxy.url(), options);
  await call(conn, api.multiply, { A: 1, B: 1 });
  proxy.down = true;
  proxy.cut();
  await until(() => conn.state.state === "waiting");
  return conn;
}

/** The errors of a chain of causes. */
function chain(error: unknown): unknown[] {
  return error instanceof Error ? [error, ...chain(error.cause)] : [];
}

const away = /no connection for \d+ ms: the connection ended \(1006\)/;

describe("a server that is away", () => {
  const ways: Record<string, (conn: Awaited<ReturnType<typeof bereft>>) => [Promise<unknown>, code: number, text: RegExp]> = {
    "a call whose time is over": (conn) => [call(conn, api.multiply, { A: 1, B: 1 }, { timeout: 50 }), Code.DeadlineExceeded, /took too long/],
    "a call whose signal's time is over": (conn) => [
      call(conn, api.multiply, { A: 1, B: 1 }, { signal: AbortSignal.timeout(50) }),
      Code.DeadlineExceeded,
      /TimeoutError/,
    ],
    "a call that is given up": (conn) => {
      const stop = new AbortController();
      setTimeout(() => stop.abort(new Error("enough")), 20);
      return [call(conn, api.multiply, { A: 1, B: 1 }, { signal: stop.signal }), Code.Canceled, /enough/];
    },
    "a call that does not wait": (conn) => [call(conn, api.multiply, { A: 1, B: 1 }, { withoutLink: "fail" }), Code.Unavailable, /^/],
    "a stream": (conn) => [receive(conn, api.endless, "", { timeout: 50 }).next() as Promise<unknown>, Code.DeadlineExceeded, /too long/],
    "a notification that does not wait": (conn) => [notify(conn, api.note, 1, { withoutLink: "fail" }), Code.Unavailable, /^/],
    "a notification that is given up": (conn) => {
      const stop = new AbortController();
      setTimeout(() => stop.abort(new Error("enough")), 20);
      const large = "x".repeat(60_000); // the first fills the window
      return [notify(conn, api.news, large).then(() => notify(conn, api.news, large, { signal: stop.signal })), Code.Canceled, /enough/];
    },
  };
  for (const [name, way] of Object.entries(ways)) {
    test(name, async () => {
      const [promise, code, text] = way(await bereft());
      const error = await failure(promise);
      assert.equal(error.code, code);
      assert.equal(error.outcome, "notSent");
      assert.match(error.message, text);
      assert.match(error.message, away);
    });
  }
  test("the reason is in the chain of causes", async () => {
    const conn = await bereft();
    const error = await failure(call(conn, api.multiply, { A: 1, B: 1 }, { withoutLink: "fail" }));
    const [, why] = chain(error);
    assert.ok(why instanceof RpcError);
    assert.equal(why, conn.state.error);
  });
  test("a call that had left says so too", async () => {
    const conn = await bereft();
    proxy.down = false;
    conn.reconnect();
    await until(() => conn.state.state === "connected");
    const left = failure(call(conn, api.wait, 60_000, { timeout: 3_000 }));
    await call(conn, api.multiply, { A: 1, B: 1 });
    proxy.down = true;
    proxy.cut();
    const error = await left;
    assert.deepEqual([error.code, error.outcome], [Code.DeadlineExceeded, "mayHaveRun"]);
    assert.match(error.message, away);
  });
  test("a call whose session is lost says how", async () => {
    const conn = dial(proxy.url("/brief"));
    await call(conn, api.multiply, { A: 1, B: 1 });
    const left = failure(call(conn, api.wait, 60_000));
    await call(conn, api.multiply, { A: 1, B: 1 });
    proxy.cut();
    const error = await left;
    assert.deepEqual([error.code, error.outcome], [Code.Unavailable, "mayHaveRun"]);
    assert.match(error.message, /^the connection was lost: the connection ended \(1006\)/);
    assert.ok(chain(error).length > 1);
  });
  test("a call whose session's grace time is over says what it waited for", async () => {
    const conn = dial(proxy.url(), { limits: { grace: 1_000 }, backoff: { max: 30 } });
    const left = failure(call(conn, api.wait, 60_000));
    await call(conn, api.multiply, { A: 1, B: 1 });
    proxy.down = true;
    proxy.cut();
    const error = await left;
    assert.deepEqual([error.code, error.outcome], [Code.Unavailable, "mayHaveRun"]);
    assert.match(error.message, /^the connection was lost: the connection ended \(1006\).*; no connection for \d+ ms: /);
  });
  test("what was closed meanwhile says both", async () => {
    const conn = await bereft();
    const left = failure(call(conn, api.multiply, { A: 1, B: 1 }));
    await conn.close();
    for (const error of [await left, await failure(call(conn, api.multiply, { A: 1, B: 1 }))]) {
      assert.equal(error.code, Code.Unavailable);
      assert.match(error.message, /closed by this side; no connection for/);
    }
  });
  test("nobody was there from the start", async () => {
    const raw = await startRaw();
    raw.stop();
    const conn = dial(raw.url);
    const error = await failure(call(conn, api.multiply, { A: 1, B: 1 }, { timeout: 2_000 }));
    assert.match(error.message, own ? /the connection ended \(1006\)/ : /ECONNREFUSED/);
    assert.ok(conn.state.since! <= Date.now());
  });
  test("credentials were refused, or there were none", async () => {
    const conn = dial(server.url("/guarded"), { signIn: signIn(() => Promise.reject(new Error("the key ring is locked"))) });
    await until(() => conn.state.state === "waiting");
    const error = await failure(call(conn, api.multiply, { A: 1, B: 1 }, { timeout: 100 }));
    assert.match(error.message, /no credentials/);
    assert.ok(chain(error).some((cause) => (cause as Error).message === "the key ring is locked"));
  });
  test("a peer is not told what is none of its business", async () => {
    const raw = await startRaw();
    raw.stop();
    const other = dial(raw.url);
    await until(() => other.state.state === "waiting");
    const conn = dial(server.url());
    serve(
      conn,
      handle(api.greet, (name) => call(other, api.back, name, { withoutLink: "fail" })),
    );
    const error = await failure(call(conn, api.back, "x"));
    assert.deepEqual([error.code, error.message], [Code.Unavailable, "no connection"]);
  });
  test("a state tells since when", async () => {
    const before = Date.now();
    const conn = await bereft();
    const { since } = conn.state;
    assert.ok(since! >= before && since! <= Date.now());
    proxy.down = false;
    conn.reconnect();
    await until(() => conn.state.state === "connected");
    assert.equal(conn.state.since, undefined);
  });
});
