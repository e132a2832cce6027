// Notifications, and what the server calls.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import {
  Code,
  RpcError,
  call,
  handle,
  handleBidiStream,
  handleClientStream,
  handleNotification,
  handleServerStream,
  notify,
  serve,
} from "../src/index.js";
import * as api from "./api.js";
import { type GoServer, closeAll, dial, failure, sleep, startServer, until } from "./server.js";

let server: GoServer;
before(async () => {
  server = await startServer();
});
after(() => server.stop());
afterEach(closeAll);

describe("notifications", () => {
  test("arrive in order, and leave before the connection is closed", async () => {
    const conn = dial(server.url());
    for (let i = 0; i < 5000; i++) await notify(conn, api.note, i);
    const report = await call(conn, api.notes, "");
    assert.deepEqual(report.wrong, []);
    await until(async () => (await call(conn, api.notes, "")).count === 5000);
  });
  test("wait for the window, or are given up", async () => {
    const conn = dial(server.url("/small"));
    await call(conn, api.multiply, { A: 1, B: 1 }); // now the window is known
    const stop = new AbortController();
    const big = "x".repeat(3000) as unknown as number;
    const all = [1, 2, 3].map(() => notify(conn, api.note, big));
    const given = failure(notify(conn, api.note, 1, { signal: stop.signal }));
    stop.abort();
    assert.equal((await given).code, Code.Canceled);
    await Promise.all(all);
    assert.equal((await failure(notify(conn, api.note, "x".repeat(5000) as never))).code, Code.ResourceExhausted);
  });
  test("that nobody handles are credited all the same", async () => {
    const conn = dial(server.url());
    assert.equal(await call(conn, api.push, { N: 3000, Text: "x".repeat(100) }), 3000);
  });
  test("come in order, one after another", async () => {
    const conn = dial(server.url());
    const seen: string[] = [];
    let running = 0;
    serve(
      conn,
      handleNotification(api.news, async (text) => {
        assert.equal(++running, 1);
        if (seen.length % 100 === 0) await sleep(1);
        seen.push(text);
        running--;
      }),
    );
    assert.equal(await call(conn, api.push, { N: 3000, Text: "!" }), 3000);
    await until(() => seen.length === 3000);
    assert.deepEqual(seen, Array.from({ length: 3000 }, (_, i) => `${i}!`));
  });
  test("that are large keep their order", async () => {
    const conn = dial(server.url());
    const seen: number[] = [];
    serve(conn, handleNotification(api.news, (text) => void seen.push(text.length)));
    await call(conn, api.push, { N: 3, Text: "x".repeat(200_000) });
    await call(conn, api.push, { N: 3, Text: "x" });
    await until(() => seen.length === 6);
    assert.deepEqual(seen, [200_001, 200_001, 200_001, 2, 2, 2]);
  });
});

describe("the server's calls", () => {
  test("are handled", async () => {
    const conn = dial(server.url());
    serve(
      conn,
      handle(api.greet, async (name, context) => {
        if (name === "fault") throw new RpcError(Code.NotFound, "nobody", { fault: "shop.no-stock", data: { left: 1 } });
        if (name === "defect") throw new Error("secret");
        if (name === "data") throw new RpcError(Code.NotFound, "nobody", { data: 1n });
        await sleep(1);
        assert.equal(context.signal.aborted, false);
        return `hello ${name}`;
      }),
    );
    assert.equal(await call(conn, api.back, "ada"), "hello ada");
    const fault = await failure(call(conn, api.back, "fault"));
    assert.deepEqual([fault.code, fault.message, fault.data], [Code.NotFound, "nobody", { left: 1 }]);
    const { error } = console;
    console.error = () => undefined;
    const defect = await failure(call(conn, api.back, "defect"));
    const bare = await failure(call(conn, api.back, "data"));
    console.error = error;
    assert.deepEqual([bare.code, bare.message], [Code.Internal, "internal error"]); // and not nothing
    assert.deepEqual([defect.code, defect.message], [Code.Internal, "internal error"]);
  });
  test("that nobody handles fail", async () => {
    const conn = dial(server.url());
    assert.equal((await failure(call(conn, api.back, "ada"))).code, Code.Unimplemented);
  });
  test("may call back, to any depth", async () => {
    const conn = dial(server.url());
    serve(conn, handle(api.nest, async (n, context) => (n ? (await call(context, api.deep, n - 1)) + 1 : 0)));
    assert.equal(await call(conn, api.deep, 20), 20);
  });
  test("have large requests and answers", async () => {
    const conn = dial(server.url());
    serve(conn, handle(api.greet, (name) => name + name));
    const text = "x".repeat(1 << 20);
    assert.equal(await call(conn, api.back, text), text + text);
  });
  test("of streams are handled", async () => {
    const conn = dial(server.url());
    let gone = false;
    serve(
      conn,
      handleServerStream(api.pageFeed, function* (n) {
        try {
          for (let i = 0; i < n; i++) yield i;
        } finally {
          gone = n > 1e6;
        }
      }),
      handleClientStream(api.pageSum, async (_, items) => {
        let total = 0;
        for await (const item of items) total += item;
        return total;
      }),
      handleBidiStream(api.pageChat, async (_, stream) => {
        stream.end(); // which is no END of the page's own stream of that number
        for await (const item of stream) await stream.send(item);
      }),
    );
    assert.equal(await call(conn, api.drive, { N: 5000, Text: "feed" }), "{5000 []}");
    assert.equal(await call(conn, api.drive, { N: 5000, Text: "sum" }), String((5000 * 4999) / 2));
    assert.equal(await call(conn, api.drive, { N: 5000, Text: "chat" }), "{5000 []}");
    assert.equal(await call(conn, api.drive, { N: 50, Text: "left" }), "left");
    await until(() => gone);
  });
});
