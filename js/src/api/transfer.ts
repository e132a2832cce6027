import { RpcError, Status, refuse } from "../status.js";
import { Kind } from "../wire/frame.js";
import type { CallOptions, Caller } from "./call.js";
import { type Traits, checkName, type types } from "./declare.js";
import { sha256 } from "./sha256.js";
import { type Opened, openStream, sendAll } from "./stream.js";

/** A call whose caller sends a file behind its request. */
export interface Upload<Request, Response> {
  readonly name: string;
  readonly traits: Traits;
  readonly [types]?: { readonly upload: (request: Request) => Response };
}

/** A call that is answered by a file. */
export interface Download<Request> {
  readonly name: string;
  readonly traits: Traits;
  readonly [types]?: { readonly download: (request: Request) => void };
}

/** Declares a call whose caller sends a file behind its request. */
export const uploadOf = <Request, Response>(name: string, traits: Traits = {}): Upload<Request, Response> => ({ name: checkName(name), traits });

/** Declares a call that is answered by a file. */
export const downloadOf = <Request>(name: string, traits: Traits = {}): Download<Request> => ({ name: checkName(name), traits });

/** Is told how many bytes are there, of how many; total is -1 when that is not known. */
export type Progress = (done: number, total: number) => void;

/** What can be sent: bytes, a Blob or File, or a stream or sequence of pieces. */
export type Source = Uint8Array | Blob | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** How a file is sent. */
export interface UploadOptions extends CallOptions {
  progress?: Progress | undefined;
  /** How many bytes the source has, where it does not know; one with more or fewer fails with DataLoss. */
  total?: number | undefined;
  /** How many bytes the receiver has already, of a transfer that broke off: they are read for the checksum, and not sent. */
  offset?: number | undefined;
}

/** How a file is received. */
export interface DownloadOptions extends CallOptions {
  progress?: Progress | undefined;
  /** How many bytes it may have; more fail with ResourceExhausted. Default: any number. */
  most?: number | undefined;
  /** What is here already, of a transfer that broke off: the sender must go on behind it. */
  prefix?: Source | undefined;
}

/** A file that is being received. It must be read to its end, or canceled. */
export interface IncomingFile extends AsyncIterable<Uint8Array> {
  /** How many bytes the whole has; -1: that is not known. */
  readonly total: number;
  /** Its bytes, in one. */
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  /** Its bytes as a Blob. */
  blob(type?: string): Promise<Blob>;
  /** Its bytes as a stream. */
  stream(): ReadableStream<Uint8Array>;
  /** Ends the transfer. */
  cancel(reason?: unknown): void;
}

/** What the items of a transfer are, by their first byte (PROTOCOL.md section 1.3). */
const enum Part {
  Head,
  Data,
  End,
}

/** Bytes of an item: two of them fit the window that a stream begins with. */
const pieceBytes = 32_000;
/** A number of bytes that is not known. */
const unknown = 0xffffffffffffffffn;

const part = (kind: Part, bytes: Uint8Array): Uint8Array => {
  const item = new Uint8Array(1 + bytes.length);
  item[0] = kind;
  item.set(bytes, 1);
  return item;
};

/** The pieces of a source. */
async function* piecesOf(source: Source): AsyncGenerator<Uint8Array, void> {
  if (source instanceof Uint8Array) {
    yield source;
  } else if (source instanceof Blob) {
    for (let at = 0; at < source.size; at += pieceBytes) yield new Uint8Array(await source.slice(at, at + pieceBytes).arrayBuffer());
  } else if (source instanceof ReadableStream) {
    // Not every host ranges over streams.
    const reader = source.getReader();
    try {
      for (let read; !(read = await reader.read()).done; ) yield read.value;
    } finally {
      await reader.cancel();
    }
  } else {
    yield* source;
  }
}

/** The items of a transfer. */
async function* itemsOf(source: Source, { total = sizeOf(source), offset = 0, progress }: UploadOptions): AsyncGenerator<Uint8Array> {
  const sum = sha256();
  const head = new DataView(new ArrayBuffer(offset ? 16 : total < 0 ? 0 : 8));
  if (head.byteLength) head.setBigUint64(0, total < 0 ? unknown : BigInt(total));
  if (offset) head.setBigUint64(8, BigInt(offset));
  yield part(Part.Head, new Uint8Array(head.buffer));
  progress?.(offset, total);
  let done = 0;
  for await (const bytes of piecesOf(source)) {
    sum.add(bytes);
    for (let at = Math.min(bytes.length, Math.max(0, offset - done)); at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      if (total >= 0 && done + at + piece.length > total) throw refuse(Status.DataLoss, "the source has more bytes than were announced");
      yield part(Part.Data, piece);
      progress?.(done + at + piece.length, total);
    }
    done += bytes.length;
  }
  if (done < Math.max(total, offset)) throw refuse(Status.DataLoss, "the source has fewer bytes than were announced");
  yield part(Part.End, sum.digest());
}

function sizeOf(source: Source): number {
  return source instanceof Blob ? source.size : source instanceof Uint8Array ? source.length : -1;
}

/**
 * Sends a file behind a request, and resolves with the answer. It waits while the handler is behind. What the source
 * throws ends the call, and is what it rejects with.
 */
export const upload = <Request, Response>(
  caller: Caller,
  { name, traits }: Upload<Request, Response>,
  request: NoInfer<Request>,
  source: Source,
  options: UploadOptions = {},
): Promise<Response> =>
  sendAll<Request, Uint8Array, Response>(caller, { name, traits }, request, itemsOf(source, options), options);

/** Calls for a file. It resolves when that begins, or rejects with the handler's error. */
export async function download<Request>(
  caller: Caller,
  declaration: Download<Request>,
  request: NoInfer<Request>,
  options: DownloadOptions = {},
): Promise<IncomingFile> {
  const opened = openStream(caller, declaration, request, options, Kind.ServerStream);
  try {
    return await begin(opened, options);
  } catch (error) {
    opened.leave(error);
    throw error;
  }
}

/** Receives the head of a transfer. */
async function begin({ stream, leave }: Opened, { most = Infinity, prefix, progress }: DownloadOptions): Promise<IncomingFile> {
  const sum = sha256();
  let done = 0;
  for await (const bytes of prefix ? piecesOf(prefix) : []) {
    sum.add(bytes);
    done += bytes.length;
  }
  const bad = (text: string, code: number = Status.Internal) => new RpcError(code, `cannot receive the transfer: ${text}`, { outcome: "answered" });
  const next = async () => {
    const item = await stream.next();
    if (!item) throw bad("it breaks off", Status.DataLoss);
    return { kind: item.payload[0], bytes: item.payload.subarray(1) };
  };
  const first = await next();
  const { byteOffset, byteLength, buffer } = first.bytes;
  if (first.kind !== Part.Head || ![0, 8, 16].includes(byteLength)) throw bad("it does not begin with its head");
  const head = new DataView(buffer, byteOffset, byteLength);
  const announced = byteLength ? head.getBigUint64(0) : unknown;
  const total = announced === unknown && byteLength !== 8 ? -1 : Number(announced);
  if (total > Number.MAX_SAFE_INTEGER) throw bad("its length makes no sense");
  if (Number(byteLength === 16 ? head.getBigUint64(8) : 0) !== done) throw bad("it goes on elsewhere", Status.FailedPrecondition);
  const bound = (bytes: number) => {
    if (bytes > most) throw bad("it is too large", Status.ResourceExhausted);
  };
  bound(Math.max(total, done));
  progress?.(done, total);

  /** The next piece; undefined: all has come, and its sum was right. */
  const piece = async (): Promise<Uint8Array | undefined> => {
    const { kind, bytes } = await next();
    if (kind === Part.Data) {
      done += bytes.length;
      if (total >= 0 && done > total) throw bad("it has more bytes than were announced", Status.DataLoss);
      bound(done);
      sum.add(bytes);
      progress?.(done, total);
      return bytes;
    }
    if (kind !== Part.End || bytes.length !== 32) throw bad("an item of it makes no sense");
    const right = sum.digest().every((byte, i) => byte === bytes[i]);
    if (!right || done < total) throw bad("its checksum or its length is wrong", Status.DataLoss);
    if (await stream.next()) throw bad("it goes on after its end");
    return undefined;
  };
  async function* pieces(): AsyncGenerator<Uint8Array, void> {
    try {
      for (let bytes; (bytes = await piece()); ) yield bytes;
    } finally {
      leave();
    }
  }
  const blob = async (type = "") => {
    const all: Uint8Array<ArrayBuffer>[] = [];
    for await (const bytes of pieces()) all.push(bytes.slice());
    return new Blob(all, { type });
  };
  return {
    total,
    blob,
    bytes: async () => new Uint8Array(await (await blob()).arrayBuffer()),
    stream() {
      const all = pieces();
      return new ReadableStream({
        async pull(controller) {
          const next = await all.next();
          if (next.done) controller.close();
          else controller.enqueue(next.value);
        },
        cancel: leave,
      });
    },
    cancel: leave,
    [Symbol.asyncIterator]: pieces,
  };
}
