import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Code, type Conn, type ErrorFields, RpcError, call, handle, method, serve } from "../src/index.js";
import * as api from "./api.js";
import { type GoServer, Proxy, closeAll, dial, failure, sleep, startServer, until } from "./server.js";

let server: GoServer;
let proxy: Proxy;

before(async () => {
  server = await startServer();
});
after(() => server.stop());
afterEach(closeAll);

describe("calls", () => {
  test("are answered", async () => {
    const conn = dial(server.url());
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    for (const value of [null, 0, "", "häuser 🙂", [1, [2]], { a: { b: null } }, false]) {
      assert.deepEqual(await call(conn, api.echo, value), value);
    }
    assert.equal(await call(conn, api.echo, undefined), null);
  });
  test("many at once", async () => {
    const conn = dial(server.url());
    const all = Array.from({ length: 3000 }, (_, i) => call(conn, api.multiply, { A: i, B: 2 }));
    assert.deepEqual(await Promise.all(all), Array.from({ length: 3000 }, (_, i) => 2 * i));
  });
  test("with large messages", async () => {
    const conn = dial(server.url());
    const text = "x".repeat(1 << 20);
    assert.equal(await call(conn, api.echo, text), text);
    const err = await failure(call(conn, api.echo, "x".repeat(5 << 20)));
    assert.deepEqual([err.code, err.outcome], [Code.ResourceExhausted, "notSent"]);
  });
  test("with large messages that travel whole", async () => {
    const conn = dial(server.url(), { fragments: undefined });
    const text = "x".repeat(1 << 20);
    assert.equal(await call(conn, api.echo, text), text);
  });
  test("with more than this side takes", async () => {
    const conn = dial(server.url(), { limits: { message: 100_000 } });
    const err = await failure(call(conn, api.large, 200_000));
    assert.deepEqual([err.code, err.outcome], [Code.ResourceExhausted, "answered"]);
    assert.equal((await call(conn, api.large, 99_000)).length, 99_000);
  });
  test("that are small do not wait for large ones", async () => {
    const conn = dial(`ws://${await server.tell("slow")}/`);
    await call(conn, api.multiply, { A: 1, B: 1 });
    const order: string[] = [];
    const big = call(conn, api.large, 3 << 20).then(() => order.push("large")); // three seconds
    await sleep(100);
    for (let i = 0; i < 5; i++) await call(conn, api.multiply, { A: 1, B: i }).then(() => order.push("small"));
    await big;
    assert.equal(order[0], "small");
  });
  test("that are given up in the middle of their fragments", async () => {
    const conn = dial(server.url());
    const all = Array.from({ length: 20 }, async (_, i) => {
      const stop = new AbortController();
      const big = call(conn, api.echo, String(i).repeat(1 << 20), { signal: stop.signal }).catch(() => "stopped");
      await sleep(i);
      if (i % 2) stop.abort();
      return big;
    });
    for (const [i, answer] of (await Promise.all(all)).entries()) {
      if (!(i % 2)) assert.equal(answer, String(i).repeat(1 << 20));
    }
    assert.equal(await call(conn, api.multiply, { A: 2, B: 2 }), 4);
  });
  test("fail as their handlers say", async () => {
    const conn = dial(server.url());
    const err = await failure(call(conn, api.fail, { Code: 70000, RetryAfter: 250 }));
    assert.deepEqual([err.code, err.message, err.outcome, err.retryAfter], [70000, "as you wish", "answered", 250]);
    const sold = await failure(call(conn, api.sell, 3));
    assert.deepEqual([sold.code, sold.fault, sold.data], [Code.FailedPrecondition, "shop.no-stock", { left: 3 }]);
    assert.equal((await failure(call(conn, api.broken, ""))).code, Code.Internal);
    const missing = await failure(call(conn, api.missing, null));
    assert.deepEqual([missing.code, missing.outcome], [Code.Unimplemented, "notSent"]);
  });
  test("cannot be encoded, or decoded", async () => {
    const conn = dial(server.url());
    const circle: unknown[] = [];
    circle.push(circle);
    const err = await failure(call(conn, api.echo, circle));
    assert.deepEqual([err.code, err.outcome], [Code.InvalidArgument, "notSent"]);
    assert.throws(() => method("rpc.secret"), TypeError);
    assert.throws(() => method(""), TypeError);
    assert.throws(() => method("x".repeat(256)), TypeError);
  });
  test("carry metadata both ways", async () => {
    const conn = dial(server.url());
    let reply;
    const seen = await call(conn, api.headers, "", { metadata: { a: "1", ü: "🙂" }, onReply: (metadata) => (reply = { ...metadata }) });
    assert.deepEqual(seen, { a: "1", ü: "🙂" });
    assert.deepEqual(reply, { answer: "42" });
    const err = await failure(call(conn, api.headers, "", { metadata: { a: "x".repeat(17000) } }));
    assert.deepEqual([err.code, err.outcome], [Code.InvalidArgument, "notSent"]);
  });
  test("end with their signals", async () => {
    const conn = dial(server.url());
    const before = await call(conn, api.canceled, "context canceled");
    const controller = new AbortController();
    const waiting = failure(call(conn, api.wait, 60_000, { signal: controller.signal }));
    await call(conn, api.multiply, { A: 1, B: 1 });
    controller.abort(new Error("enough"));
    const err = await waiting;
    assert.deepEqual([err.code, err.outcome], [Code.Canceled, "mayHaveRun"]);
    await until(async () => (await call(conn, api.canceled, "context canceled")) > before);
    const gone = await failure(call(conn, api.wait, 1, { signal: AbortSignal.abort() }));
    assert.deepEqual([gone.code, gone.outcome], [Code.Canceled, "notSent"]);
  });
  test("end when their time is over", async () => {
    const conn = dial(server.url());
    // Whichever is the first: the deadline that travelled, or the CANCEL.
    const ended = async () => (await call(conn, api.canceled, "context canceled")) + (await call(conn, api.canceled, "context deadline exceeded"));
    const before = await ended();
    // On a busy machine it may be over before the handler has begun.
    for (let timeout = 60; (await ended()) === before; timeout *= 2) {
      const err = await failure(call(conn, api.wait, 60_000, { timeout }));
      assert.equal(err.code, Code.DeadlineExceeded); // from the handler, if it was faster
    }
    const late = await failure(call(conn, api.wait, 60_000, { signal: AbortSignal.timeout(50) }));
    assert.equal(late.code, Code.DeadlineExceeded);
    assert.equal(await call(conn, api.wait, 1), "waited");
  });
  test("have time without end, as far as timers go", async () => {
    const conn = dial(server.url());
    for (const timeout of [2 ** 31, 1e15, Infinity]) {
      assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }, { timeout }), 42);
    }
  });
  test("wait for a place", async () => {
    const conn = dial(server.url("/small"));
    const all = Array.from({ length: 20 }, (_, i) => call(conn, api.multiply, { A: i, B: 1 }));
    const stopped = new AbortController();
    const two = [1, 2].map(() => call(conn, api.wait, 2_000)); // longer than a busy machine makes of 50 ms
    const never = failure(call(conn, api.run, "never", { signal: stopped.signal }));
    await sleep(50);
    stopped.abort();
    assert.equal((await never).outcome, "notSent");
    assert.deepEqual(await Promise.all(two), ["waited", "waited"]);
    assert.deepEqual(await Promise.all(all), Array.from({ length: 20 }, (_, i) => i));
    assert.equal(await call(conn, api.run, "never"), 1);
  });
});

test("an error that a page makes claims nothing of how far a call got", () => {
  assert.equal(new RpcError(Code.Unavailable, "wrapped").outcome, "mayHaveRun");
});

describe("handlers", () => {
  const of = (fields: ErrorFields) => new RpcError(Code.NotFound, "no such thing", fields);
  const long = "x".repeat(100_000);
  const ways: Record<string, [(reply: Record<string, string>) => string, Partial<RpcError>]> = {
    "a negative wait": [() => { throw of({ retryAfter: -1 }); }, { code: Code.NotFound }],
    "an endless wait": [() => { throw of({ retryAfter: Infinity }); }, { code: Code.NotFound }],
    "data that is too large": [() => { throw of({ fault: "mine", data: "x".repeat(5 << 20) }); }, { code: Code.NotFound, fault: undefined }],
    "metadata that passes for a fault": [
      (reply) => {
        reply["rpc.fault"] = "mine";
        throw of({});
      },
      { code: Code.NotFound, fault: undefined },
    ],
    "too much metadata beside an error": [
      (reply) => {
        reply.long = long;
        throw of({ fault: "mine" });
      },
      { code: Code.NotFound, fault: "mine" },
    ],
    "too much metadata": [(reply) => (reply.long = long), { code: Code.Internal }],
  };
  for (const [name, [fn, expected]] of Object.entries(ways)) {
    test(`answer with ${name}, and the connection goes on`, async () => {
      const conn = dial(server.url());
      serve(conn, handle(api.greet, (_, { reply }) => fn(reply)));
      const error = await failure(call(conn, api.back, ""));
      for (const [field, value] of Object.entries(expected)) assert.equal(error[field as keyof RpcError], value, `${field} of ${String(error)}`);
      serve(conn, handle(api.greet, (name) => name));
      assert.equal(await call(conn, api.back, "ada"), "ada");
      assert.equal(conn.state.resumed, false);
      await conn.close();
    });
  }
});

describe("connections", () => {
  test("tell their state, and close", async () => {
    const conn = dial(server.url() + "?secret=1");
    const seen: string[] = [];
    const urls = new Set<string>();
    conn.onState(({ state, url }) => {
      seen.push(state);
      urls.add(url);
    });
    assert.equal(conn.state.state, "connecting");
    const slow = failure(call(conn, api.wait, 60_000));
    await call(conn, api.multiply, { A: 1, B: 1 });
    await conn.close();
    await conn.close();
    assert.deepEqual(seen, ["connecting", "connected", "closed"]);
    assert.deepEqual([...urls], [server.url()]);
    const err = await slow;
    assert.deepEqual([err.code, err.outcome], [Code.Unavailable, "mayHaveRun"]);
    const refused = await failure(call(conn, api.multiply, { A: 1, B: 1 }));
    assert.deepEqual([refused.code, refused.outcome], [Code.Unavailable, "notSent"]);
  });
  test("close before they are open", async () => {
    const conn = dial("ws://127.0.0.1:9/");
    const err = failure(call(conn, api.multiply, { A: 1, B: 1 }));
    await conn.close();
    assert.equal((await err).outcome, "notSent");
    assert.equal(conn.state.state, "closed");
  });
  test("have addresses that make sense", () => {
    assert.throws(() => dial("http://"), TypeError);
    assert.throws(() => dial("/rpc"), TypeError); // there is no page
  });
  test("fail fast while there is no link", async () => {
    const conn = dial("ws://127.0.0.1:9/", { withoutLink: "fail" });
    const err = await failure(call(conn, api.multiply, { A: 1, B: 1 }));
    assert.deepEqual([err.code, err.outcome], [Code.Unavailable, "notSent"]);
  });
});

describe("links that break", () => {
  let conn: Conn;
  before(async () => {
    proxy = await new Proxy(server.address).start();
  });
  after(() => proxy.stop());

  test("break no call", async () => {
    conn = dial(proxy.url());
    const resumed: unknown[] = [];
    await call(conn, api.multiply, { A: 1, B: 1 });
    conn.onState((state) => {
      if (state.state === "connected") resumed.push(state.resumed);
    });
    const slow = call(conn, api.wait, 150);
    const counted = call(conn, api.run, "resumed");
    await sleep(20);
    proxy.cut();
    assert.equal(await slow, "waited");
    assert.equal(await counted, 1);
    assert.equal(await call(conn, api.run, "resumed"), 2);
    assert.deepEqual(resumed.slice(1), [true]);
  });
  test("hold calls back that are made meanwhile", async () => {
    conn = dial(proxy.url());
    await call(conn, api.multiply, { A: 1, B: 1 });
    proxy.down = true;
    proxy.cut();
    await until(() => conn.state.state === "waiting");
    assert.ok(conn.state.next! >= Date.now() - 5_000);
    const held = call(conn, api.multiply, { A: 3, B: 1 });
    const err = await failure(call(conn, api.multiply, { A: 1, B: 1 }, { withoutLink: "fail" }));
    assert.equal(err.outcome, "notSent");
    proxy.down = false;
    conn.reconnect();
    assert.equal(await held, 3);
  });
  test("lose a session that has no grace", async () => {
    proxy.stop();
    proxy = await new Proxy(server.address).start();
    conn = dial(proxy.url("/brief"));
    await call(conn, api.multiply, { A: 1, B: 1 });
    const lost = failure(call(conn, api.wait, 60_000));
    const again = call(conn, api.repeat, "repeated");
    await call(conn, api.multiply, { A: 1, B: 1 }); // they have come
    proxy.cut();
    const err = await lost;
    assert.deepEqual([err.code, err.outcome], [Code.Unavailable, "mayHaveRun"]);
    assert.equal(await again, 2);
  });
});
