// The built file, as a page without npm has it.
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { WebSocket } from "ws";
import type * as client from "../src/index.js";
import { startServer } from "./server.js";

test("the built file calls, and ranges over a stream", async (t) => {
  const { call, connect, fragments, method, receive, serverStream } = (await import(
    pathToFileURL(path.resolve("dist/typedrpc.js")).href
  )) as typeof client;
  const server = await startServer();
  t.after(() => server.stop());
  const conn = connect(server.url(), { WebSocket: WebSocket as unknown as client.SocketConstructor, fragments });
  assert.equal(await call(conn, method<unknown, number>("math.multiply"), { A: 6, B: 7 }), 42);
  let items = 0;
  for await (const item of receive(conn, serverStream<unknown, number>("numbers"), { From: 0, To: 100 })) assert.equal(item, items++);
  assert.equal(items, 100);
  await conn.close();
});
