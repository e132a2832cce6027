// What a server that has consumed items need not credit at once holds nobody back.
import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { call, open } from "../src/index.js";
import { Type, makeFrame } from "../src/wire/frame.js";
import * as api from "./api.js";
import { type RawServer, startRaw } from "./raw.js";
import { closeAll, dial, failure, until } from "./server.js";

afterEach(closeAll);

const items = (raw: RawServer) => raw.frames.filter(({ type }) => type === Type.Item);

describe("slack", () => {
  test("beside a sixteenth of window and budget an item of any size goes", async () => {
    const raw = await startRaw(() => ({ limits: { window: 1600, budget: 1600, message: 100_000 } }));
    const conn = dial(raw.url);
    const stream = open(conn, api.doubles, "");
    await until(() => raw.frames.length === 1);
    const { id } = raw.frames[0]!;
    const long = "x".repeat(50_000) as never;
    await stream.send(1); // counts 65
    await stream.send(long);
    const last = stream.send(2);
    await until(() => items(raw).length === 2);
    raw.send(makeFrame(Type.Credit, { id, items: 1 }));
    void failure(call(conn, api.multiply, { A: 1, B: 1 }));
    await until(() => raw.frames.at(-1)!.type === Type.Call);
    assert.equal(items(raw).length, 2); // 50,000 are out
    raw.send(makeFrame(Type.Credit, { id, items: 1 }));
    await last;
    await until(() => items(raw).length === 3);
    await conn.close().finally(() => raw.stop());
  });
});
