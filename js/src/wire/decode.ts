import { Flag, type Frame, May, type Metadata, Type, faultName, makeFrame, mostMetadata, mostName, shapes } from "./frame.js";
import { malformed, toBytes, toText } from "./text.js";

const lenient = new TextDecoder("utf-8", { ignoreBOM: true });

/** The bits of flags that this version knows. */
const knownFlags: Record<number, number> = {
  [Type.Call]: Flag.Kind | Flag.Lane | Flag.NoItems,
  [Type.Fail]: Flag.NotRun,
  [Type.Item]: Flag.History | Flag.Prompt,
};

/**
 * Reads the frames of a message one after another; their payloads are views of it. One of a type that this version
 * does not know has nothing but its payload, and MORE when it counts. What is malformed throws.
 */
export function* framesOf(message: Uint8Array): Generator<Frame> {
  let at = 0;
  let end = 0;
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
  const read = (field: keyof Frame): unknown => {
    if (field === "flags") return byte();
    if (field === "metadata") return metadata();
    if (field === "message") return lenient.decode(bytes());
    if (field === "method") return toText(bytes());
    const value = uint();
    return field !== "code" ? value : value % 2 ? -(value + 1) / 2 : value / 2; // zigzag
  };
  do {
    end = message.length;
    const head = byte();
    const size = byte() | (byte() << 8) | (byte() << 16);
    end = at + size;
    if (end > message.length) malformed("length");
    const type = head & 0x1f;
    const frame = makeFrame(type, { more: (head & 0x20) > 0, fromCaller: (head & 0x40) > 0, counted: head > 0x7f });
    const [may, ...fields] = shapes[type] ?? [May.BeAnything];
    for (const field of fields) (frame[field] as unknown) = read(field);
    frame.payload = message.subarray(at, end);
    at = end;
    check(frame, may);
    yield frame;
  } while (at < message.length);
}

/** Refuses what is well written and makes no sense, and finds the name of a fault. */
function check(frame: Frame, may: number): void {
  const { type, counted, more, fromCaller, id, flags, method, items, metadata, payload } = frame;
  if (
    !type ||
    (may !== May.BeAnything && counted !== type >= Type.Call) ||
    (more && !(may & May.GoOn)) ||
    !(may & (fromCaller ? May.BeCaller : May.BeCallee)) ||
    (payload.length && !(may & May.HavePayload)) ||
    (!id && !(may & May.LackID)) ||
    id > Number.MAX_SAFE_INTEGER ||
    flags & ~(knownFlags[type] ?? 0) ||
    (type === Type.Credit && !items) ||
    ((type === Type.Call || type === Type.Notify) && !isName(method))
  ) {
    malformed("fields");
  }
  if (type !== Type.Fail) return;
  const { [faultName]: fault = "", ...rest } = metadata;
  frame.metadata = rest;
  if (isName(fault)) frame.fault = fault;
}

/** Whether a text can be the name of a method or a fault. */
export const isName = (text: string): boolean => text !== "" && toBytes(text).length <= mostName;
