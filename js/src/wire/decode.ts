import { Flag, type Frame, May, type Metadata, Type, faultName, makeFrame, mostMetadata, mostName, shapes } from "./frame.js";
import { malformed, toBytes, toText } from "./text.js";

const lenient = new TextDecoder("utf-8", { ignoreBOM: true });

/** The bits of flags that this version knows. */
const knownFlags: Record<number, number> = {
  [Type.Call]: Flag.Kind | Flag.Lane | Flag.NoItems,
  [Type.Fail]: Flag.NotRun,
  [Type.Item]: Flag.History,
};

/**
 * Reads the frames of a message one after another; their payloads are views of it. One of a type that this version
 * does not know has nothing but its payload, and MORE when it counts. What is malformed throws.
 */
export function* framesOf(message: Uint8Array): Generator<Frame> {
  let at = 0;
  let end = message.length;
  const byte = (): number => (at < end ? message[at++]! : malformed("truncated"));
  /** An integer of 64 bits; beyond 2^53 it is not exact. */
  const uint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 0x80) {
      const next = byte();
      if (next * scale >= 2 ** 64) malformed("integer");
      value += (next & 0x7f) * scale;
      if (next < 0x80) return value;
    }
  };
  const bytes = (): Uint8Array => {
    const size = uint();
    return size > end - at ? malformed("length") : message.subarray(at, (at += size));
  };
  const metadata = (): Metadata => {
    const pairs = Object.create(null) as Record<string, string>;
    let room = mostMetadata;
    for (let count = uint(); count > 0; count--) {
      const [name, value] = [bytes(), bytes()];
      const key = toText(name);
      room -= name.length + value.length;
      if (room < 0 || key in pairs) malformed("metadata");
      pairs[key] = toText(value);
    }
    return pairs;
  };
  do {
    end = message.length;
    const head = byte();
    const size = byte() | (byte() << 8) | (byte() << 16);
    end = at + size;
    if (end > message.length) malformed("length");
    const frame = header(head);
    const { type } = frame;
    for (const field of (shapes[type]?.slice(1) ?? []) as (keyof Frame)[]) {
      let value: unknown;
      if (field === "flags") value = byte();
      else if (field === "method") value = toText(bytes());
      else if (field === "message") value = lenient.decode(bytes());
      else if (field === "metadata") value = metadata();
      else value = uint();
      (frame[field] as unknown) = value;
    }
    frame.payload = message.subarray(at, end);
    at = end;
    check(frame);
    yield frame;
  } while (at < message.length);
}

/** A frame of which the header's first byte was read. */
function header(head: number): Frame {
  const frame = makeFrame(head & 0x1f, { more: (head & 0x20) > 0, fromCaller: (head & 0x40) > 0 });
  const { type, more, fromCaller } = frame;
  const may = shapes[type]?.[0];
  const counted = head > 0x7f;
  if (
    !type ||
    (may !== undefined &&
      (counted !== frame.counted || (more && !(may & May.GoOn)) || !(may & (fromCaller ? May.BeCaller : May.BeCallee))))
  ) {
    malformed("header");
  }
  frame.counted = counted;
  return frame;
}

/** Refuses what is well written and makes no sense, and finds the name of a fault. */
function check(frame: Frame): void {
  const { type, id, method, code, metadata, payload } = frame;
  const [may, ...fields] = shapes[type] ?? [May.HavePayload];
  if (frame.flags & ~(knownFlags[type] ?? 0)) malformed("flags");
  if (
    (fields.includes("id") && !id && type !== Type.Credit && type !== Type.Chunk) ||
    id > Number.MAX_SAFE_INTEGER ||
    (fields.includes("items") && !frame.items) ||
    (fields.includes("method") && !isName(method)) ||
    (payload.length && !(may & May.HavePayload))
  ) {
    malformed("fields");
  }
  if (type !== Type.Fail) return;
  frame.code = code % 2 ? -(code + 1) / 2 : code / 2; // zigzag
  const { [faultName]: fault = "", ...rest } = metadata;
  frame.metadata = rest;
  if (isName(fault)) frame.fault = fault;
}

/** Whether a text can be the name of a method or a fault. */
export const isName = (text: string): boolean => text !== "" && toBytes(text).length <= mostName;
