// Credentials, keyed calls, and servers that go away.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { Code, type State, call, handleNotification, newKey, serve, signIn } from "../src/index.js";
import * as api from "./api.js";
import { type GoServer, Proxy, closeAll, dial, failure, sleep, startServer, until } from "./server.js";

let server: GoServer;
let proxy: Proxy;
before(async () => {
  server = await startServer();
  proxy = await new Proxy(server.address).start();
});
after(() => {
  server.stop();
  proxy.stop();
});
afterEach(closeAll);

interface Token {
  user: string;
  life?: number;
}
interface Welcome {
  greeting: string;
}

describe("credentials", () => {
  test("are presented, and answered", async () => {
    const who = signIn<Token, Welcome>(() => ({ user: "ada" }));
    const conn = dial(server.url("/guarded"), { signIn: who });
    assert.equal(await call(conn, api.multiply, { A: 2, B: 2 }), 4);
    assert.deepEqual(who.reply, { greeting: "hello ada" });
  });
  test("that are missing, or wrong, are the end", async () => {
    const nobody = dial(server.url("/guarded"));
    const err = await failure(call(nobody, api.multiply, { A: 2, B: 2 }));
    assert.deepEqual([err.code, err.message, err.outcome, err.data], [Code.FailedPrecondition, "who are you?", "notSent", { left: 1 }]);
    await nobody.done;
    assert.equal(nobody.state.error?.fault, err.fault);
    const eve = dial(server.url("/guarded"), { signIn: signIn(() => ({ user: "eve" })) });
    assert.equal((await failure(call(eve, api.multiply, { A: 2, B: 2 }))).code, Code.PermissionDenied);
  });
  test("that cannot be had are asked for again", async () => {
    let asked = 0;
    const who = signIn<Token>(async () => {
      await sleep(1);
      if (++asked < 3) throw new Error("not now");
      return { user: "ada" };
    });
    const conn = dial(server.url("/guarded"), { signIn: who });
    const states: State[] = [];
    conn.onState((state) => states.push(state));
    assert.equal(await call(conn, api.multiply, { A: 2, B: 2 }), 4);
    assert.equal(states.find(({ state }) => state === "waiting")!.error!.code, Code.Unauthenticated);
  });
  test("are refreshed before they end, one refresh at a time", async () => {
    let asked = 0;
    const who = signIn<Token, Welcome>(async () => {
      asked++;
      await sleep(5);
      return { user: "ada", life: 3_000 }; // a busy machine needs time to refresh them
    });
    const conn = dial(server.url("/guarded"), { signIn: who });
    let links = 0;
    conn.onState(({ state }) => (links += state === "connected" ? 1 : 0));
    const slow = call(conn, api.wait, 3_500);
    await Promise.all(Array.from({ length: 20 }, () => who.refresh()));
    const early = asked;
    assert.ok(early <= 3, String(early));
    assert.equal(await slow, "waited");
    assert.ok(asked > early);
    assert.equal(links, 1);
  });
  test("that are refused leave the session as it was", async () => {
    let user = "ada";
    const who = signIn<Token>(() => ({ user }));
    const conn = dial(server.url("/guarded"), { signIn: who });
    assert.equal(await call(conn, api.multiply, { A: 2, B: 2 }), 4);
    user = "";
    assert.equal((await failure(who.refresh())).fault, "shop.no-stock");
    assert.equal(await call(conn, api.multiply, { A: 2, B: 3 }), 6);
  });
  test("that were revoked end the session, and are presented again", async () => {
    const conn = dial(server.url("/guarded"), { signIn: signIn<Token>(() => ({ user: "ada" })) });
    assert.equal(await call(conn, api.multiply, { A: 2, B: 2 }), 4);
    const slow = failure(call(conn, api.wait, 60_000));
    await call(conn, api.multiply, { A: 1, B: 1 });
    assert.equal(await server.tell("revoke"), "revoked");
    assert.equal((await slow).outcome, "mayHaveRun");
    assert.equal(await call(conn, api.multiply, { A: 2, B: 3 }), 6);
  });
  for (const how of ["ban", "ban at once"]) {
    test(`whose owner is told to stay away: ${how}`, async () => {
      const conn = dial(server.url("/guarded"), { signIn: signIn<Token>(() => ({ user: "ada" })), backoff: { max: 20 } });
      const heard: number[] = [];
      serve(
        conn,
        handleNotification(api.note, (n) => void heard.push(n)),
      );
      const states: string[] = [];
      await call(conn, api.multiply, { A: 2, B: 2 });
      conn.onState(({ state }) => states.push(state));
      const slow = failure(call(conn, api.wait, 60_000));
      await call(conn, api.multiply, { A: 1, B: 1 });
      assert.equal(await server.tell(how), "banned");
      await conn.done;
      const { error } = conn.state;
      assert.deepEqual([error!.code, error!.message, error!.fault, error!.data], [Code.FailedPrecondition, "you are banned", "shop.no-stock", { left: 7 }]);
      assert.equal((await slow).outcome, "mayHaveRun");
      assert.ok(!states.includes("waiting"));
      if (how === "ban") assert.deepEqual(heard, [1]);
      await sleep(100);
      assert.equal(conn.state.state, "closed");
    });
  }
  for (const session of [true, false]) {
    test(`whose owner was away: ${session ? "the session's" : "and comes for no session"}`, async () => {
      const options = { signIn: signIn<Token>(() => ({ user: "ada" })), backoff: { max: 20 }, limits: { grace: session ? 30_000 : 0 } };
      const proxy = await new Proxy(server.address).start();
      const conn = dial(proxy.url("/guarded"), options);
      await call(conn, api.multiply, { A: 2, B: 2 });
      proxy.down = true;
      proxy.cut();
      await until(() => conn.state.state === "waiting");
      await server.tell("ban at once");
      proxy.down = false;
      if (session) {
        await conn.done;
        assert.equal(conn.state.error!.message, "you are banned");
      } else {
        assert.equal(await call(conn, api.multiply, { A: 2, B: 3 }), 6);
      }
      proxy.stop();
    });
  }
  test("fail with the connection", async () => {
    const who = signIn<Token>(() => ({ user: "ada" }));
    const conn = dial("ws://127.0.0.1:9/", { signIn: who });
    const refused = failure(who.refresh());
    await conn.close();
    assert.equal((await refused).code, Code.Unavailable);
  });
});

describe("keyed calls", () => {
  test("run once, although their session is lost", async () => {
    const conn = dial(proxy.url("/brief"));
    await call(conn, api.multiply, { A: 1, B: 1 });
    const first = call(conn, api.once, "lost");
    await sleep(50);
    proxy.cut();
    assert.equal(await first, 1);
  });
  test("run once for each key", async () => {
    const conn = dial(server.url());
    const key = newKey();
    assert.equal(await call(conn, api.once, "key", { key }), 1);
    assert.equal(await call(conn, api.once, "key", { key }), 1);
    assert.equal(await call(conn, api.once, "key"), 2);
    const other = await startServer();
    const elsewhere = dial(other.url());
    const err = await failure(call(elsewhere, api.once, "key", { key }));
    assert.deepEqual([err.code, err.outcome], [Code.FailedPrecondition, "mayHaveRun"]);
    await elsewhere.close();
    other.stop();
  });
});

describe("a server that goes away", () => {
  test("finishes what it has, and another one takes the rest", async () => {
    const old = await startServer();
    const conn = dial(old.url(), { urls: [server.url()], backoff: { max: 50 } });
    await until(async () => {
      await call(conn, api.multiply, { A: 1, B: 1 });
      if (conn.state.url === old.url()) return true;
      conn.reconnect();
      await sleep(20);
      return false;
    }).catch(() => undefined);
    const slow = call(conn, api.wait, 300);
    await sleep(50);
    const down = old.tell("shutdown");
    await sleep(50);
    const held = call(conn, api.multiply, { A: 3, B: 5 });
    assert.equal(await slow, "waited");
    assert.equal(await held, 15);
    assert.equal(await down, "down");
    assert.equal(conn.state.url, server.url());
    old.stop();
  });
});
