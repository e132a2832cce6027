// Hosts that are no browser, and what a browser has that Node has not.
import assert from "node:assert/strict";
import path from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { Code, call, connect } from "../src/index.js";
import * as api from "./api.js";
import { startRaw } from "./raw.js";
import { type GoServer, Proxy, WebSocket, closeAll, dial, failure, own, sleep, startServer, until } from "./server.js";

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

/** Gives the host something for the time of a test. */
function lend(t: { after(fn: () => void): void }, things: object): void {
  const before = Object.fromEntries(Object.keys(things).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]));
  for (const [name, value] of Object.entries(things)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  t.after(() => {
    for (const [name, was] of Object.entries(before)) {
      if (was) Object.defineProperty(globalThis, name, was);
      else Reflect.deleteProperty(globalThis, name);
    }
  });
}

describe("hosts", () => {
  test("a worker", async () => {
    const code = `
      import { parentPort, workerData } from "node:worker_threads";
      const { call, connect, method } = await import(workerData.client);
      const conn = connect(workerData.url, workerData.ws && { WebSocket: (await import(workerData.ws)).WebSocket });
      parentPort.postMessage(await call(conn, method("math.multiply"), { A: 6, B: 7 }));
      await conn.close();`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
      workerData: {
        client: pathToFileURL(path.resolve("dist/typedrpc.js")).href,
        ws: own ? undefined : pathToFileURL(path.resolve("node_modules/ws/wrapper.mjs")).href,
        url: server.url(),
      },
    });
    const answer = await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    assert.equal(answer, 42);
    await new Promise((resolve) => worker.once("exit", resolve)); // nothing keeps it alive
  });
  test("a connection that was closed leaves no timer, which would keep its process alive", { skip: own && "the host has timers of its own" }, async (t) => {
    const timers = new Map<unknown, number>();
    const { setTimeout, clearTimeout } = globalThis;
    lend(t, {
      setTimeout(fn: () => void, delay: number) {
        const timer = setTimeout(() => (timers.delete(timer), fn()), delay);
        timers.set(timer, delay);
        return timer;
      },
      clearTimeout: (timer: never) => (timers.delete(timer), clearTimeout(timer)),
    });
    const conn = dial(proxy.url(), { limits: { grace: 25_000 } });
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    proxy.cut();
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    const late = failure(call(conn, api.wait, 60_000, { timeout: 50_000 }));
    assert.ok(timers.size > 2);
    await conn.close();
    await late;
    assert.deepEqual([...timers.values()].filter((delay) => delay !== 30_000), []); // ws waits so long for the other side
  });
  test("none at all", (t) => {
    lend(t, { WebSocket: undefined });
    assert.throws(() => connect(server.url()), TypeError);
  });
  test("one that throws is asked again", async () => {
    let refusals = 2;
    class Moody extends WebSocket {
      constructor(url: string, protocols: string[]) {
        if (refusals-- > 0) throw new Error("not on this page");
        super(url, protocols);
      }
    }
    const conn = dial(server.url(), { WebSocket: Moody, backoff: { max: 20 } });
    const errors: string[] = [];
    conn.onState(({ error }) => error && errors.push(error.message)); // they may pass between two looks
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    assert.equal(errors.length, 2);
    for (const error of errors) assert.match(error, /not on this page/);
  });
  test("addresses are relative to the page", async (t) => {
    lend(t, { location: { href: `http://${server.address}/pages/index.html?x#y` } });
    const conn = dial("../?secret=1#z");
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    assert.equal(conn.state.url, server.url());
  });
  for (const event of ["online", "pageshow", "visibilitychange"]) {
    test(`${event} ends the wait, unless the page is hidden`, async (t) => {
      const page = new EventTarget();
      const document = { hidden: true };
      let listeners = 0;
      lend(t, {
        document,
        addEventListener: (name: string, fn: () => void) => (listeners++, page.addEventListener(name, fn)),
        removeEventListener: (name: string, fn: () => void) => (listeners--, page.removeEventListener(name, fn)),
      });
      proxy.down = true;
      const conn = dial(proxy.url(), { backoff: { min: 3_600_000, max: 3_600_000, factor: 1 } });
      await until(() => conn.state.state === "waiting");
      proxy.down = false;
      page.dispatchEvent(new Event(event));
      assert.equal(conn.state.state, "waiting");
      document.hidden = false;
      page.dispatchEvent(new Event(event));
      assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
      await conn.close();
      assert.equal(listeners, 0);
    });
  }
  test("a page that is left for good ends its session, one that is kept does not", async (t) => {
    const page = new EventTarget();
    lend(t, {
      addEventListener: page.addEventListener.bind(page),
      removeEventListener: page.removeEventListener.bind(page),
    });
    const codes: (number | undefined)[] = [];
    class Seen extends WebSocket {
      override close(code?: number, reason?: string) {
        codes.push(code);
        super.close(code, reason);
      }
    }
    const conn = dial(server.url(), { WebSocket: Seen });
    for (const [persisted, code] of [
      [true, undefined],
      [false, 1000],
    ] as const) {
      assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
      page.dispatchEvent(Object.assign(new Event("pagehide"), { persisted }));
      assert.equal(codes.pop(), code);
    }
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42); // should it not have been left
    await conn.close();
  });
  for (const event of ["freeze", "pagehide"]) {
    test(`${event} is no reason to come back sooner than the server said`, async (t) => {
      const page = new EventTarget();
      lend(t, {
        addEventListener: page.addEventListener.bind(page),
        removeEventListener: page.removeEventListener.bind(page),
      });
      let attempts = 0;
      const raw = await startRaw((attempt) => ((attempts = attempt), 4429));
      t.after(() => raw.stop());
      const conn = dial(raw.url, { backoff: { max: 3_600_000 } });
      await until(() => conn.state.state === "waiting");
      page.dispatchEvent(Object.assign(new Event(event), { persisted: true }));
      await sleep(0);
      assert.equal(conn.state.state, "waiting");
      assert.equal(attempts, 1);
      await conn.close();
    });
  }
  test("several addresses: the one that answers is taken", async () => {
    const dead = await startRaw();
    dead.stop();
    const conn = dial(dead.url, { urls: [server.url(), dead.url], backoff: { max: 20 } });
    assert.equal(await call(conn, api.multiply, { A: 6, B: 7 }), 42);
    assert.equal(conn.state.url, server.url());
  });
  for (const [code, error] of [
    [4400, Code.Internal],
    [4401, Code.Unauthenticated],
    [4403, Code.PermissionDenied],
  ] as const) {
    test(`a server that closes with ${code} ends the connection`, async (t) => {
      const raw = await startRaw(() => code);
      t.after(() => raw.stop());
      const conn = dial(raw.url);
      const failed = await failure(call(conn, api.multiply, { A: 1, B: 1 }));
      assert.deepEqual([failed.code, failed.outcome], [error, "notSent"]);
      await conn.done;
      assert.equal(conn.state.state, "closed");
      assert.equal(conn.state.error!.code, error);
    });
  }
  for (const code of [1001, 1012, 1013, 4408, 4409]) {
    test(`a server that closes with ${code} is dialled again`, async (t) => {
      const raw = await startRaw((attempt) => (attempt === 1 ? code : {}));
      t.after(() => raw.stop());
      const conn = dial(raw.url, { backoff: { max: 20 } });
      await until(() => conn.state.state === "connected");
      await conn.close();
    });
  }
});
