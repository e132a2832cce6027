// Servers that break the protocol: a typed error, and never a hang or growth.
import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { type AddressInfo } from "node:net";
import { WebSocketServer } from "ws";
import { Code, type ConnectOptions, call } from "../src/index.js";
import { encode } from "../src/wire/encode.js";
import { Type, makeFrame } from "../src/wire/frame.js";
import * as api from "./api.js";
import { hex } from "./protocol.js";
import { closeAll, dial, failure, until } from "./server.js";

afterEach(closeAll);

const body = (type: Type, text: string) => encode(makeFrame(type, { payload: new TextEncoder().encode(text) }));
const welcome = body(Type.Welcome, '{"resumed":false,"token":"x","features":["resume","streams","fragments"]}');

/** Connects to a server that answers HELLO with some messages, and returns what a call fails with. */
async function meet(messages: (Uint8Array | string)[], options: ConnectOptions = {}, timeout = 2_000) {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "typedrpc.v1.json" });
  await new Promise((resolve) => server.on("listening", resolve));
  const codes: number[] = [];
  server.on("connection", (socket) => {
    socket.on("error", () => undefined);
    socket.once("message", () => {
      for (const message of messages) socket.send(message);
    });
    socket.on("close", (code) => codes.push(code));
  });
  const conn = dial(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/`, options);
  const error = await failure(call(conn, api.multiply, { A: 1, B: 1 }, { timeout }));
  const { state } = conn.state;
  await until(() => codes.length > 0); // of the first link
  await conn.close();
  for (const client of server.clients) client.terminate();
  server.close();
  return { error, state, codes };
}

describe("servers that break the protocol", () => {
  const after = (...frames: (Uint8Array | string)[]) => [welcome, ...frames];
  const cases: Record<string, (Uint8Array | string)[]> = {
    "text instead of WELCOME": ["hello"],
    "an empty message": [new Uint8Array()],
    "another frame before WELCOME": [encode(makeFrame(Type.Ping))],
    "WELCOME that is no object": [body(Type.Welcome, "[1]")],
    "WELCOME with a member twice": [body(Type.Welcome, '{"token":"a","token":"b"}')],
    "WELCOME with a member twice whose name is long": [body(Type.Welcome, `{"${"é".repeat(200)}":1,"${"é".repeat(200)}":1}`)],
    "WELCOME with a member of a wrong type": [body(Type.Welcome, '{"grace":"long"}')],
    "WELCOME twice": after(welcome),
    "a position that was never sent": after(encode(makeFrame(Type.Ack, { position: 7 }))),
    "a huge position": after(hex("06 0a 00 00 ff ff ff ff ff ff ff ff ff 01")),
    "text after WELCOME": after("hello"),
    "a length beyond the message": after(hex("89 ff ff ff 07 00")),
    "a frame of type 0": after(hex("80 00 00 00")),
    "ids that do not rise": after(hex("c8 06 00 00 01 00 00 01 61 00"), hex("c8 06 00 00 01 00 00 01 61 00")),
    "CREDIT for nothing": after(hex("8e 03 00 00 00 01 00")),
    "a CHUNK of nothing": after(hex("90 02 00 00 00 01")),
    "AUTH_OK without AUTH": after(body(Type.AuthOK, "{}")),
    "GOAWAY that is no object": after(body(Type.GoAway, "1")),
    "a notification in the middle of another": after(hex("af 03 00 00 01 6e 00"), hex("af 03 00 00 01 6e 00")),
  };
  for (const [name, messages] of Object.entries(cases)) {
    test(name, async () => {
      const { error, state } = await meet(messages, {}, 30_000);
      assert.equal(error.code, Code.Internal, error.message);
      assert.equal(state, "closed");
    });
  }
  test("no answer to HELLO", async () => {
    const { error, state } = await meet([], { limits: { handshake: 50 }, withoutLink: "wait" });
    assert.equal(error.code, Code.DeadlineExceeded);
    assert.notEqual(state, "closed"); // it comes back
  });
  test("a message that is too large", async () => {
    const { error } = await meet(after(new Uint8Array(5 << 20)));
    assert.equal(error.outcome, "mayHaveRun");
  });
  test("a refusal", async () => {
    const { error } = await meet([body(Type.AuthOK, '{"error":{"code":16,"message":"who?","retryAfter":60000}}')], { limits: { handshake: 50 } });
    assert.ok([Code.DeadlineExceeded, Code.Unauthenticated].includes(error.code as never));
  });
  test("a server that sends everybody away at once", async (t) => {
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "typedrpc.v1.json" });
    await new Promise((resolve) => server.on("listening", resolve));
    t.after(() => server.close());
    let links = 0;
    server.on("connection", (socket) => {
      links++;
      socket.on("error", () => undefined);
      socket.once("message", () => {
        for (const message of after(body(Type.GoAway, '{"max":1}'))) socket.send(message);
      });
    });
    const conn = dial(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/`, { backoff: { min: 100, factor: 1 } });
    const began = Date.now();
    do await new Promise((resolve) => setTimeout(resolve, 1_000));
    while (links < 2);
    const seconds = (Date.now() - began) / 1_000;
    await conn.close();
    assert.ok(links < 60 * seconds, `${links} links in ${seconds} seconds`); // a wait is 50 ms on the average
  });
  test("a flood of frames for calls that never were", async () => {
    const flood = encode(makeFrame(Type.Result, { id: 99 }));
    const { error, codes } = await meet(after(...Array.from({ length: 20_000 }, () => flood)));
    assert.equal(error.code, Code.DeadlineExceeded); // it comes back late
    assert.ok(codes.includes(4429));
  });
});
