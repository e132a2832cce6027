import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, afterEach, before, describe, test } from "node:test";
import { Code, type Member, RpcError, type TopicEvent, call, download, open, receive, sendAll, subscribe, upload, watch } from "../src/index.js";
import { sha256 } from "../src/api/sha256.js";
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

const all = async <T>(items: AsyncIterable<T>) => {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
};
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i);

describe("streams", () => {
  test("of the server's", async () => {
    const conn = dial(server.url());
    assert.deepEqual(await all(receive(conn, api.numbers, { From: 0, To: 20_000 })), upTo(20_000));
    assert.deepEqual(await all(receive(conn, api.numbers, { From: 0, To: 0 })), []);
    assert.deepEqual((await all(receive(conn, api.bytes, 300))).map((x) => [...x]), upTo(300).map((i) => [i % 256, 0, 255]));
    const err = await failure(all(receive(conn, api.numbers, { From: 2, To: 0 })));
    assert.deepEqual([err.fault, err.data, err.gap], ["shop.no-stock", { left: 2 }, false]);
  });
  test("that are left end", async () => {
    const conn = dial(server.url());
    for await (const n of receive(conn, api.endless, "loop")) if (n === 1000) break;
    await until(async () => (await call(conn, api.left, "loop")) === 1);
    const stop = new AbortController();
    const err = await failure(
      (async () => {
        for await (const n of receive(conn, api.endless, "signal", { signal: stop.signal })) if (n === 1000) stop.abort();
      })(),
    );
    assert.deepEqual([err.code, err.gap], [Code.Canceled, false]);
    const items = receive(conn, api.endless, "return");
    await items.next();
    await items.return!();
    assert.deepEqual(await items.next(), { value: undefined, done: true });
  });
  test("wait for who is slower", async () => {
    const conn = dial(server.url());
    const items = receive(conn, api.endless, "slow");
    await items.next();
    await sleep(100);
    assert.equal(await call(conn, api.multiply, { A: 2, B: 3 }), 6);
    for (let i = 1; i < 5000; i++) assert.equal((await items.next()).value, i);
    await items.return!();
  });
  test("of the caller's", async () => {
    const conn = dial(server.url());
    assert.equal(await sendAll(conn, api.sum, "ordered", upTo(20_000)), (20_000 * 19_999) / 2);
    assert.equal(await sendAll(conn, api.sum, "", []), 0);
    let asked = 0;
    const many = (function* () {
      for (;;) yield asked++;
    })();
    assert.equal(await sendAll(conn, api.sum, "early", many), 3);
    const broken = (async function* () {
      yield 1;
      await sleep(1);
      throw new RangeError("broken");
    })();
    await assert.rejects(sendAll(conn, api.sum, "", broken), RangeError);
  });
  test("in both directions", async () => {
    const conn = dial(server.url());
    const stream = open(conn, api.doubles, "");
    const sent = (async () => {
      for (let i = 0; i < 5000; i++) await stream.send(i);
      stream.end();
    })();
    assert.deepEqual(await all(stream), upTo(5000).map((n) => 2 * n));
    await sent;
    assert.equal((await failure(stream.send(1))).outcome, "answered");
    const other = open(conn, api.doubles, "");
    await other.send(4);
    other.cancel();
    assert.equal((await failure(all(other))).code, Code.Canceled);
  });
  test("with large items, and many at once", async () => {
    const conn = dial(server.url());
    const many = upTo(50).map(() => all(receive(conn, api.numbers, { From: 0, To: 300 })));
    for (const items of await Promise.all(many)) assert.deepEqual(items, upTo(300));
  });
  test("outlive their links", async () => {
    const conn = dial(proxy.url());
    const items = receive(conn, api.numbers, { From: 0, To: 300, Millis: 1 });
    const list: number[] = [];
    for await (const n of items) {
      list.push(n);
      if (n % 100 === 50) proxy.cut();
    }
    assert.deepEqual(list, upTo(300));
  });
  test("that lose their session end with a gap, or are opened again", async () => {
    const conn = dial(proxy.url("/brief"));
    const run = async (onGap?: (error: RpcError) => void) => {
      const list: number[] = [];
      // More than a window holds: when the link is cut not all has come.
      for await (const n of receive(conn, api.numbers, { From: 0, To: 5_000 }, { onGap })) {
        list.push(n);
        if (n === 50) proxy.cut();
      }
      return list;
    };
    const err = await failure(run());
    assert.deepEqual([err.code, err.outcome, err.gap], [Code.Unavailable, "mayHaveRun", true]);
    const gaps: RpcError[] = [];
    assert.deepEqual(await run((gap) => gaps.push(gap)), upTo(5_000));
    assert.ok(gaps.length === 1 && gaps[0]!.gap);
    await assert.rejects(
      run(() => {
        throw new RangeError("no more");
      }),
      RangeError,
    );
  });
});

describe("topics", () => {
  test("remember, and tell what is published", async () => {
    const conn = dial(server.url());
    for (const text of ["a", "b"]) await call(conn, api.publish, { Key: "history", Text: text });
    const events: TopicEvent<string>[] = [];
    for await (const event of subscribe(conn, api.room, "history")) {
      events.push(event);
      if (events.length === 2) await call(conn, api.publish, { Key: "history", Text: "c" });
      if (events.length === 3) break;
    }
    assert.deepEqual(events, [
      { value: "a", missed: 0, history: true },
      { value: "b", missed: 0, history: true },
      { value: "c", missed: 0, history: false },
    ]);
  });
  test("tell who is there", async () => {
    const conn = dial(server.url());
    const other = subscribe(conn, api.room, "presence");
    const first = other.next();
    const members = watch(conn, api.room, "presence");
    const member = (await members.next()).value as Member;
    assert.deepEqual([member.subject, member.left], ["", false]);
    await call(conn, api.publish, { Key: "presence", Text: "x" });
    await first;
    await other.return!();
    assert.deepEqual((await members.next()).value, { subject: "", about: "", left: true, changed: false, history: false });
    await members.return!();
  });
  test("tell what the server says of who is there", async () => {
    const conn = dial(server.url());
    const other = subscribe(conn, api.room, "introduced");
    const first = other.next();
    const members = watch(conn, api.room, "introduced");
    const member = { subject: "", about: "Änn Lee", left: false, changed: false };
    assert.deepEqual({ ...((await members.next()).value as Member), history: true }, { ...member, history: true });
    await call(conn, api.publish, { Key: "introduced", Text: "about Bob:+" });
    assert.deepEqual((await members.next()).value, { ...member, about: "Bob:+", changed: true, history: false });
    await call(conn, api.publish, { Key: "introduced", Text: "x" });
    await first;
    await other.return!();
    assert.equal(((await members.next()).value as Member).left, true);
    await members.return!();
  });
  test("go on after a gap, and say so", async () => {
    const conn = dial(proxy.url("/brief"));
    const still = dial(server.url());
    const events: TopicEvent<string>[] = [];
    let gaps = 0;
    await call(still, api.publish, { Key: "gap", Text: "begin" });
    for await (const event of subscribe(conn, api.room, "gap", { onGap: () => gaps++ })) {
      events.push(event);
      if (event.value === "end") break;
      if (events.length > 1) continue;
      proxy.cut();
      await call(still, api.publish, { Key: "gap", Text: "end" });
    }
    assert.equal(gaps, 1);
    assert.deepEqual(
      events.map(({ value, missed }) => [value, missed]),
      [
        ["begin", 0],
        ["begin", -1],
        ["end", 0],
      ],
    );
  });
});

describe("transfers", () => {
  const data = Uint8Array.from({ length: 500_000 }, (_, i) => i * 7);
  const hex = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

  test("sum as everybody does", () => {
    for (const size of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 100_000]) {
      const sum = sha256();
      for (let at = 0; at < size; at += 77) sum.add(data.subarray(at, Math.min(size, at + 77)));
      assert.equal(Buffer.from(sum.digest()).toString("hex"), hex(data.subarray(0, size)));
    }
  });
  test("send files of every kind", async () => {
    const conn = dial(server.url());
    const blob = new Blob([data]);
    const chunks = function* () {
      yield data.subarray(0, 123_456);
      yield data.subarray(123_456);
    };
    for (const source of [data, blob, blob.stream(), chunks()]) {
      const progress: number[] = [];
      const receipt = await upload(conn, api.put, "name", source, { progress: (done) => progress.push(done) });
      assert.deepEqual(receipt, { name: "name", size: data.length, sum: hex(data) });
      assert.deepEqual([progress[0], progress.at(-1)], [0, data.length]);
    }
    assert.equal((await failure(upload(conn, api.put, "", data, { total: 10 }))).code, Code.DataLoss);
    assert.equal((await failure(upload(conn, api.put, "", chunks(), { total: 1 << 20 }))).code, Code.DataLoss);
  });
  test("receive files", async () => {
    const conn = dial(server.url());
    const progress: [number, number][] = [];
    const file = await download(conn, api.get, { Name: "jack" }, { progress: (...now) => progress.push(now) });
    const bytes = await file.bytes();
    assert.equal(file.total, 880_000);
    assert.equal(bytes.length, 880_000);
    assert.deepEqual([progress[0], progress.at(-1)], [[0, 880_000], [880_000, 880_000]]);
    const blob = await (await download(conn, api.get, { Name: "jack" })).blob("text/plain");
    assert.deepEqual([blob.size, blob.type], [880_000, "text/plain"]);
    assert.equal((await new Response((await download(conn, api.get, { Name: "jack" })).stream()).text()).length, 880_000);
    assert.equal((await failure(download(conn, api.get, { Name: "joe" }))).code, Code.NotFound);
    assert.equal((await failure(download(conn, api.get, { Name: "jack" }, { most: 1000 }))).code, Code.ResourceExhausted);
    const prefix = bytes.slice(0, 500_001);
    const rest = await download(conn, api.get, { Name: "jack", Offset: prefix.length }, { prefix });
    assert.deepEqual(await rest.bytes(), bytes.slice(500_001));
    assert.equal((await failure(download(conn, api.get, { Name: "jack", Offset: 3 }))).code, Code.FailedPrecondition);
  });
  test("break off when they are canceled", async () => {
    const conn = dial(server.url());
    for await (const bytes of await download(conn, api.get, { Name: "jack" })) if (bytes.length) break;
    const file = await download(conn, api.get, { Name: "jack" });
    file.cancel();
    assert.equal((await failure(file.bytes())).code, Code.Canceled);
  });
  test("outlive their links", async () => {
    const conn = dial(proxy.url());
    let cuts = 0;
    const file = await download(conn, api.get, { Name: "jack" }, { progress: (done) => done > cuts * 300_000 && (cuts++, proxy.cut()) });
    assert.equal((await file.bytes()).length, 880_000);
    assert.ok(cuts > 1);
  });
});
