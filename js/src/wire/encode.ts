import { type Frame, faultName, shapes } from "./frame.js";
import { toBytes } from "./text.js";

/** An upper bound of a frame's encoding. */
export const sizeOf = (frame: Frame): number =>
  96 + frame.payload.length + 3 * (frame.method.length + frame.message.length + frame.fault.length + JSON.stringify(frame.metadata).length);

/** Where frames are put together. */
let scratch = new Uint8Array(4 << 10);

/** The bytes of a frame. */
export function encode(frame: Frame): Uint8Array<ArrayBuffer> {
  const { type, payload } = frame;
  const most = sizeOf(frame);
  if (scratch.length < most) scratch = new Uint8Array(most);
  let at = 4;
  const uint = (value: number) => {
    for (; value > 0x7f; value = Math.floor(value / 0x80)) scratch[at++] = (value % 0x80) | 0x80;
    scratch[at++] = value;
  };
  const put = (bytes: Uint8Array) => {
    scratch.set(bytes, at);
    at += bytes.length;
  };
  const text = (value: string) => {
    const bytes = toBytes(value);
    uint(bytes.length);
    put(bytes);
  };
  const [, ...fields] = shapes[type]!;
  for (const field of fields) {
    const value = frame[field];
    if (field === "metadata") {
      const pairs = Object.entries(frame.fault ? { ...frame.metadata, [faultName]: frame.fault } : frame.metadata);
      uint(pairs.length);
      pairs.flat().forEach(text);
    } else if (typeof value === "string") {
      text(value);
    } else {
      const number = value as number;
      uint(field !== "code" ? number : number < 0 ? -2 * number - 1 : 2 * number); // zigzag
    }
  }
  put(payload);
  const size = at - 4;
  const head = type | (frame.more ? 0x20 : 0) | (frame.fromCaller ? 0x40 : 0) | (frame.counted ? 0x80 : 0);
  scratch.set([head, size, size >> 8, size >> 16]);
  return scratch.slice(0, at);
}
