import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { readBody, writeBody } from "../src/wire/body.js";
import { Close } from "../src/wire/close.js";
import { framesOf } from "../src/wire/decode.js";
import { encode, sizeOf } from "../src/wire/encode.js";
import { type Frame, Type, makeFrame } from "../src/wire/frame.js";
import { examples, hex } from "./protocol.js";

/** A frame without prototypes and views. */
const plain = (frame: Frame) =>
  Object.fromEntries(Object.entries(frame).map(([k, v]) => [k, k === "payload" ? [...(v as Uint8Array)] : k === "metadata" ? Object.entries(v as object) : (v as unknown)]));

const refused = (message: Uint8Array) => assert.throws(() => [...framesOf(message)]);

describe("examples of PROTOCOL.md", () => {
  test("there are some", () => {
    assert.ok(examples.filter((x) => x.language === "hex").length >= 18);
    assert.ok(examples.filter((x) => x.language !== "hex").length >= 5);
  });
  for (const { language, line, body } of examples) {
    test(`line ${line}: ${language}`, () => {
      if (language === "hex") {
        const message = hex(body);
        assert.deepEqual(
          Buffer.concat([...framesOf(message)].map(encode)),
          Buffer.from(message),
        );
      } else {
        const bytes = new TextEncoder().encode(body.trim());
        const written = JSON.parse(body) as Record<string, unknown>;
        const read = { ...readBody(bytes) } as unknown as Record<string, unknown>;
        for (const [name, value] of Object.entries(written)) {
          if (name === "limits" || name === "error") assert.deepEqual({ ...(read[name] as object), ...(value as object) }, read[name]);
          else assert.deepEqual(read[name], value);
        }
        assert.deepEqual(writeBody(written), bytes);
      }
    });
  }
});

describe("fields", () => {
  const filled = makeFrame(Type.Call, {
    fromCaller: true,
    more: true,
    id: Number.MAX_SAFE_INTEGER,
    flags: 0x0f,
    timeLeft: 1500,
    method: "häuser.öffnen",
    metadata: { a: "1", b: "🙂" },
    payload: Uint8Array.of(1, 2, 3),
  });
  const all = [
    filled,
    makeFrame(Type.Fail, { id: 3, flags: 1, code: -70000, message: "no", fault: "no-stock", retryAfter: 9, metadata: { k: "v" } }),
    makeFrame(Type.Item, { id: 2 ** 40, flags: 1, dropped: Number.MAX_SAFE_INTEGER, payload: new Uint8Array(70000) }),
    makeFrame(Type.Credit, { id: 0, items: 3, window: 1 << 20 }),
    makeFrame(Type.Ping, { position: 2 ** 52 + 1 }),
    makeFrame(Type.Chunk, { id: 0, more: true, payload: Uint8Array.of(7) }),
  ];
  for (const frame of all) {
    test(`type ${frame.type} goes there and back`, () => {
      const bytes = encode(frame);
      assert.ok(bytes.length <= sizeOf(frame));
      const [back] = [...framesOf(bytes)];
      assert.deepEqual(plain(back!), plain(frame));
    });
  }
  test("metadata named like a property of objects", () => {
    const metadata = JSON.parse('{"__proto__":"a","constructor":"b"}') as Record<string, string>;
    const [back] = [...framesOf(encode(makeFrame(Type.Result, { id: 1, metadata })))];
    assert.deepEqual(Object.entries(back!.metadata), [
      ["__proto__", "a"],
      ["constructor", "b"],
    ]);
  });
  test("a fault's name of more than 255 bytes is none", () => {
    const [back] = [...framesOf(encode(makeFrame(Type.Fail, { id: 1, code: 9, fault: "x".repeat(256) })))];
    assert.equal(back!.fault, "");
    assert.deepEqual(Object.keys(back!.metadata), []);
  });
  test("an integer of 64 bits", () => {
    assert.equal([...framesOf(hex("05 0a 00 00 ff ff ff ff ff ff ff ff ff 01"))][0]!.position, 2 ** 64);
    refused(hex("05 0a 00 00 ff ff ff ff ff ff ff ff ff 02"));
    refused(hex("05 0b 00 00 80 80 80 80 80 80 80 80 80 80 00"));
    assert.equal([...framesOf(hex("05 03 00 00 85 80 00"))][0]!.position, 5); // not minimal
  });
});

describe("what is malformed", () => {
  const messages: Record<string, string> = {
    "half a header": "05 02",
    "type 0": "80 00 00 00",
    "a length beyond the message": "05 ff ff ff 01",
    "a counted PING": "85 01 00 00 01",
    "a CALL that does not count": "48 05 00 00 01 00 00 01 61",
    "a CALL of the callee": "88 06 00 00 01 00 00 01 61 00",
    "a RESULT of the caller": "c9 02 00 00 01 00",
    "a CANCEL with MORE": "eb 01 00 00 07",
    "a FAIL with MORE": "aa 06 00 00 01 00 00 00 00 00",
    "the id 0": "cb 01 00 00 00",
    "a CREDIT of nothing": "8e 03 00 00 00 00 00",
    "trailing bytes": "cb 02 00 00 07 07",
    "an unknown flag": "c8 06 00 00 01 10 00 01 61 00",
    "no method": "c8 05 00 00 01 00 00 00 00",
    "a method that is no text": "c8 06 00 00 01 00 00 01 ff 00",
    "metadata twice": "89 0a 00 00 01 02 01 61 01 31 01 61 01 32",
    "more metadata than there are bytes": "89 04 00 00 01 ff ff 03",
    "an id beyond 2^53": "cb 08 00 00 80 80 80 80 80 80 80 20",
  };
  for (const [name, body] of Object.entries(messages)) test(name, () => refused(hex(body)));

  test("metadata over its bound", () => {
    refused(encode(makeFrame(Type.Result, { id: 1, metadata: { a: "x".repeat(16 << 10) } })));
  });
  test("a type of a later version is none", () => {
    const [frame] = [...framesOf(hex("b7 01 00 00 01"))];
    assert.equal(frame!.counted, true);
    assert.equal([...framesOf(hex("17 01 00 00 01"))][0]!.counted, false);
  });
  test("random bytes end, one way or the other", () => {
    let seed = 1;
    const random = () => (seed = (seed * 48271) % 0x7fffffff);
    for (let i = 0; i < 20000; i++) {
      const bytes = Uint8Array.from({ length: random() % 40 }, random);
      if (bytes.length > 3) bytes.set([bytes[0]!, bytes.length - 4, 0, 0]);
      try {
        void [...framesOf(bytes)];
      } catch (err) {
        assert.ok(err instanceof Close || err instanceof TypeError, String(err)); // no text, or no frame
      }
    }
  });
});

describe("bodies", () => {
  const body = (text: string) => readBody(new TextEncoder().encode(text));
  const bad = [
    "[]", "null", "1", "{", '{"resumed":1}', '{"token":null}', '{"received":-1}', '{"received":1.5}', '{"limits":[]}',
    '{"limits":{"calls":"9"}}', '{"limits":{"calls":1,"calls":2}}', '{"features":"resume"}', '{"features":[1]}',
    `{"features":[${Array(65).fill('"x"').join()}]}`, '{"token":"a","token":"b"}', '{"token":"a","t\\u006fken":"b"}',
    '{"error":{"code":"x"}}', '{"error":{"message":"a","message":"b"}}',
  ];
  for (const text of bad) test(text, () => assert.throws(() => body(text)));
  test("not UTF-8", () => assert.throws(() => readBody(Uint8Array.of(0x7b, 0xff, 0x7d))));
  const good = [
    '{"constructor":1,"toString":2,"__proto__":3}', '{"reply":{"a":1,"a":2}}', '{"reply":null}', '{"error":{"code":-70000}}',
    '{"error":{"data":{"a":1,"a":2}}}', '{"reason":"\\"token\\":","token":"x"}', '{"reply":[{"token":1}],"token":"x"}',
  ];
  for (const text of good) test(text, () => assert.ok(body(text)));
});
