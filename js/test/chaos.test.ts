// Everything at once, both ways, while links are cut at random bytes: exactly once, and in order. CHAOS is the number
// of calls, notifications and items each way.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { call, handle, handleNotification, notify, open, receive, serve } from "../src/index.js";
import * as api from "./api.js";
import { type GoServer, Proxy, closeAll, dial, sleep, startServer, until } from "./server.js";

const size = Number(process.env.CHAOS ?? 2000);
const cuts = Math.max(20, size / 100);

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

test(`chaos: ${size} of each kind, ${cuts} cuts`, async () => {
  let seed = 7;
  const random = () => (seed = (seed * 48271) % 0x7fffffff) / 0x7fffffff;
  const conn = dial(proxy.url(), { backoff: { max: 20 } });
  let lost = 0;
  let resumed = 0;
  conn.onState((state) => {
    if (state.state !== "connected") return;
    if (state.resumed) resumed++;
    else lost++;
  });

  const news: string[] = [];
  const greeted = new Map<string, number>();
  serve(
    conn,
    handleNotification(api.news, (text) => void news.push(text)),
    handle(api.greet, (name) => {
      greeted.set(name, (greeted.get(name) ?? 0) + 1);
      return name;
    }),
  );
  await call(conn, api.multiply, { A: 1, B: 1 });

  let done = false;
  const cutting = (async () => {
    while (!done && proxy.cuts < cuts) {
      await sleep(5 + random() * 20);
      if (conn.state.state === "connected") proxy.cut();
    }
  })();
  const calls = async () => {
    const workers = Array.from({ length: 16 }, async (_, worker) => {
      for (let i = worker; i < size; i += 16) assert.equal(await call(conn, api.run, `call ${i}`), 1);
    });
    await Promise.all(workers);
  };
  const backs = async () => {
    const workers = Array.from({ length: 16 }, async (_, worker) => {
      for (let i = worker; i < size; i += 16) assert.equal(await call(conn, api.back, `${i}`), `${i}`);
    });
    await Promise.all(workers);
  };
  const notifications = async () => {
    for (let i = 0; i < size; i++) await notify(conn, api.note, i);
  };
  const both = async () => {
    const stream = open(conn, api.doubles, "");
    const sent = (async () => {
      for (let i = 0; i < size; i++) await stream.send(i);
      stream.end();
    })();
    let next = 0;
    for await (const item of stream) assert.equal(item, 2 * next++);
    await sent;
    assert.equal(next, size);
  };
  const down = async () => {
    let next = 0;
    for await (const item of receive(conn, api.numbers, { From: 0, To: size })) assert.equal(item, next++);
    assert.equal(next, size);
  };
  await Promise.all([calls(), backs(), notifications(), both(), down(), call(conn, api.push, { N: size })]);
  done = true;
  await cutting;

  await until(async () => (await call(conn, api.notes, "")).count >= size);
  const report = await call(conn, api.notes, "");
  await until(() => news.length >= size);
  assert.deepEqual(report, { count: size, wrong: [] });
  assert.deepEqual(news, Array.from({ length: size }, (_, i) => String(i)));
  assert.deepEqual([...greeted.values()].filter((times) => times !== 1), []);
  assert.equal(greeted.size, size);
  assert.equal(lost, 1, "the session went on");
  assert.ok(resumed > 0);
  await closeAll();
});
