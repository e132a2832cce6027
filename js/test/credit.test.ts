// What a page consumes of the server's streams is credited as long as its handler runs.
import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { handleBidiStream, handleClientStream, handleNotification, serve } from "../src/index.js";
import { Kind, Type, makeFrame } from "../src/wire/frame.js";
import * as api from "./api.js";
import { type RawServer, bodyOf, startRaw } from "./raw.js";
import { closeAll, dial, until } from "./server.js";

afterEach(closeAll);

/** Something that a test lets happen. */
function gate() {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { open, opened };
}

/** Has a server call a stream of the page's and send three items and their end, and then a notification. */
function callWith(raw: RawServer, method: string, kind: Kind): void {
  const item = makeFrame(Type.Item, { id: 1, fromCaller: true, payload: bodyOf("7") });
  raw.send(
    makeFrame(Type.Call, { id: 1, method, flags: kind, fromCaller: true, payload: bodyOf('""') }),
    item,
    item,
    item,
    makeFrame(Type.End, { id: 1, fromCaller: true }),
    makeFrame(Type.Notify, { method: "note", payload: bodyOf("1") }),
  );
}

const credited = (raw: RawServer) =>
  raw.frames.filter(({ type, id }) => type === Type.Credit && id === 1).reduce((sum, { items }) => sum + items, 0);

describe("what a handler consumes after the end of its caller's items", () => {
  for (const kind of [Kind.ClientStream, Kind.BidiStream]) {
    test(`is credited while it runs, and nothing behind its answer: kind ${kind}`, async () => {
      const raw = await startRaw();
      const conn = dial(raw.url);
      const all = gate();
      const read = gate();
      const enough = gate();
      const consume = async (items: AsyncIterable<number>) => {
        await all.opened;
        let total = 0;
        for await (const item of items) total += item;
        read.open();
        await enough.opened;
        return total;
      };
      serve(
        conn,
        handleNotification(api.note, all.open),
        handleClientStream(api.pageSum, (_, items) => consume(items)),
        handleBidiStream(api.pageChat, async (_, stream) => void (await consume(stream))),
      );
      await until(() => conn.state.state === "connected");
      callWith(raw, kind === Kind.ClientStream ? "page.sum" : "page.chat", kind);
      await read.opened;
      await until(() => credited(raw) === 3);
      enough.open();
      await until(() => raw.frames.some(({ type }) => type === Type.Result));
      await conn.close(); // all that was to go has gone
      assert.equal(raw.frames.at(-1)!.type, Type.Result);
      assert.equal(credited(raw), 3);
      raw.stop();
    });
  }
});
