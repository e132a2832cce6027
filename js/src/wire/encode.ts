import { type Frame, type Metadata, layouts } from "./frame.js";

const utf8 = new TextEncoder();

/** Bytes of a text. */
export const toBytes = (text: string): Uint8Array => utf8.encode(text);

/** More than the header and all integers of any body take. */
const mostFields = 72;

/** An upper bound of a frame's encoding. */
export function sizeOf(frame: Frame): number {
  let size = mostFields + frame.payload.length + 3 * (frame.method.length + frame.message.length + frame.fault.length);
  for (const name in frame.metadata) size += 20 + 3 * (name.length + frame.metadata[name]!.length);
  return size;
}

/** What a message is written into. */
export class Output {
  length = 0;
  #bytes = new Uint8Array(1 << 10);

  /** The message, which is the caller's. */
  take(): Uint8Array<ArrayBuffer> {
    const message = this.#bytes.slice(0, this.length);
    this.length = 0;
    return message;
  }

  /** Appends a frame. */
  add(frame: Frame): void {
    this.#room(sizeOf(frame));
    const start = this.length;
    this.#byte(frame.type | (frame.more ? 0x20 : 0) | (frame.fromCaller ? 0x40 : 0) | (frame.counted ? 0x80 : 0));
    this.length += 3;
    for (const field of layouts[frame.type] ?? []) this.#field(frame, field);
    this.#raw(frame.payload);
    const size = this.length - start - 4;
    for (let i = 0; i < 3; i++) this.#bytes[start + 1 + i] = size >> (8 * i);
  }

  #field(frame: Frame, field: keyof Frame): void {
    switch (field) {
      case "flags":
        return this.#byte(frame.flags);
      case "code": // zigzag
        return this.#uint(frame.code < 0 ? -2 * frame.code - 1 : 2 * frame.code);
      case "method":
      case "message":
        return this.#text(frame[field]);
      case "metadata":
        return this.#metadata(frame.fault ? { ...frame.metadata, [faultName]: frame.fault } : frame.metadata);
    }
    this.#uint(frame[field] as number);
  }

  #room(size: number): void {
    if (this.length + size <= this.#bytes.length) return;
    const old = this.#bytes;
    this.#bytes = new Uint8Array(Math.max(2 * old.length, this.length + size));
    this.#bytes.set(old);
  }

  #byte(value: number): void {
    this.#bytes[this.length++] = value;
  }

  #uint(value: number): void {
    for (; value > 0x7f; value = Math.floor(value / 0x80)) this.#byte((value % 0x80) | 0x80);
    this.#byte(value);
  }

  #raw(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  #text(text: string): void {
    const bytes = toBytes(text);
    this.#uint(bytes.length);
    this.#raw(bytes);
  }

  #metadata(metadata: Metadata): void {
    const pairs = Object.entries(metadata);
    this.#uint(pairs.length);
    for (const pair of pairs) pair.forEach((text) => this.#text(text));
  }
}

/** The metadata of a FAIL that names its fault: those who know none read on behind it. */
export const faultName = "rpc.fault";

/** One frame alone. */
export function encode(frame: Frame): Uint8Array<ArrayBuffer> {
  const out = new Output();
  out.add(frame);
  return out.take();
}
