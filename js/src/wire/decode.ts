import { faultName } from "./encode.js";
import { Flag, Frame, Type, layouts, mostMetadata, mostName, mayContinue, mayBeCaller, mustBeCaller, namesCall, hasNoPayload } from "./frame.js";

/** A peer broke the protocol. */
export class ProtocolError extends Error {}

/** Ends the reading of what a peer must not send. */
export function malformed(what: string): never {
  throw new ProtocolError(what);
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenient = new TextDecoder("utf-8", { ignoreBOM: true });

/** The text of some bytes; what is no UTF-8 is malformed. */
export function toText(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    return malformed("not UTF-8");
  }
}

/** The bits of flags that this version knows. */
const knownFlags: Record<number, number> = {
  [Type.Call]: Flag.Kind | Flag.Lane | Flag.NoItems,
  [Type.Fail]: Flag.NotRun,
  [Type.Item]: Flag.History,
};

/** Reads the frames of a message, whose payloads are views of it. */
export class Input {
  #at = 0;
  #end: number;

  constructor(readonly bytes: Uint8Array) {
    this.#end = bytes.length;
  }

  /** Whether everything was read. */
  get done(): boolean {
    return this.#at === this.bytes.length;
  }

  /** Reads the next frame. One of an unknown type has nothing but a payload. */
  frame(): Frame {
    const { bytes } = this;
    if (this.#at + 4 > bytes.length) malformed("header");
    const head = this.#byte();
    const size = this.#byte() + this.#byte() * 0x100 + this.#byte() * 0x10000;
    this.#end = this.#at + size;
    if (this.#end > bytes.length) malformed("length");
    const frame = header(head);
    for (const field of layouts[frame.type] ?? []) this.#field(frame, field);
    frame.payload = bytes.subarray(this.#at, this.#end);
    this.#at = this.#end;
    this.#end = bytes.length;
    check(frame);
    return frame;
  }

  #field(frame: Frame, field: keyof Frame): void {
    switch (field) {
      case "flags":
        frame.flags = this.#byte();
        if (frame.flags & ~knownFlags[frame.type]!) malformed("flags");
        return;
      case "code": {
        const zigzag = this.#uint();
        frame.code = zigzag % 2 ? -(zigzag + 1) / 2 : zigzag / 2;
        return;
      }
      case "method": {
        const name = this.#bytes();
        if (!name.length || name.length > mostName) malformed("method");
        frame.method = toText(name);
        return;
      }
      case "message":
        frame.message = lenient.decode(this.#bytes());
        return;
      case "metadata":
        return this.#metadata(frame);
    }
    (frame[field] as number) = this.#uint();
  }

  #byte(): number {
    if (this.#at >= this.#end) malformed("truncated");
    return this.bytes[this.#at++]!;
  }

  /** An integer of 64 bits; beyond 2^53 it is not exact. */
  #uint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const byte = this.#byte();
      value += (byte & 0x7f) * scale;
      if (scale > 2 ** 63 || (scale === 2 ** 63 && byte > 1)) malformed("integer");
      if (byte < 0x80) return value;
    }
  }

  #bytes(): Uint8Array {
    const size = this.#uint();
    const from = this.#at;
    if (size > this.#end - from) malformed("length");
    this.#at += size;
    return this.bytes.subarray(from, this.#at);
  }

  #metadata(frame: Frame): void {
    const metadata = Object.create(null) as Record<string, string>;
    let room = mostMetadata;
    for (let count = this.#uint(); count > 0; count--) {
      const [name, value] = [this.#bytes(), this.#bytes()];
      const key = toText(name);
      room -= name.length + value.length;
      if (room < 0 || key in metadata) malformed("metadata");
      metadata[key] = toText(value);
      if (frame.type === Type.Fail && key === faultName) {
        if (value.length <= mostName) frame.fault = metadata[key];
        metadata[key] = "";
      }
    }
    if (frame.type === Type.Fail) delete metadata[faultName];
    frame.metadata = metadata;
  }
}

/** A frame of which the header's first byte was read. */
function header(head: number): Frame {
  const frame = new Frame(head & 0x1f);
  const counted = head > 0x7f;
  frame.more = (head & 0x20) > 0;
  frame.fromCaller = (head & 0x40) > 0;
  const { type } = frame;
  if (!type) malformed("type");
  if (type > Type.Chunk) {
    frame.counted = counted;
  } else if (
    counted !== frame.counted ||
    (frame.more && !mayContinue.includes(type)) ||
    (frame.fromCaller ? !mayBeCaller.includes(type) : mustBeCaller.includes(type))
  ) {
    malformed("header");
  }
  return frame;
}

/** Refuses what is well written and makes no sense. */
function check(frame: Frame): void {
  const { type, id } = frame;
  if (
    (!id && namesCall.includes(type)) ||
    id > Number.MAX_SAFE_INTEGER ||
    (type === Type.Credit && !frame.items) ||
    (frame.payload.length && hasNoPayload.includes(type))
  ) {
    malformed("fields");
  }
}
