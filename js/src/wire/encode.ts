import { type Frame, faultName, shapes } from "./frame.js";
import { toBytes } from "./text.js";

/** An upper bound of a frame's encoding. */
export const sizeOf = (frame: Frame): number =>
  96 + frame.payload.length + 3 * (frame.method.length + frame.message.length + frame.fault.length + JSON.stringify(frame.metadata).length);

/** The bytes of a frame. */
export function encode(frame: Frame): Uint8Array<ArrayBuffer> {
  const { type, payload } = frame;
  const body: number[] = [];
  const uint = (value: number) => {
    for (; value > 0x7f; value = Math.floor(value / 0x80)) body.push((value % 0x80) | 0x80);
    body.push(value);
  };
  const text = (value: string) => {
    const bytes = toBytes(value);
    uint(bytes.length);
    body.push(...bytes);
  };
  for (const field of shapes[type]!.slice(1) as (keyof Frame)[]) {
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
  const size = body.length + payload.length;
  const head = type | (frame.more ? 0x20 : 0) | (frame.fromCaller ? 0x40 : 0) | (frame.counted ? 0x80 : 0);
  const bytes = new Uint8Array(4 + size);
  bytes.set([head, size, size >> 8, size >> 16]);
  bytes.set(body, 4);
  bytes.set(payload, 4 + body.length);
  return bytes;
}
