import { canceled } from "../engine/call.js";
import { type Item, type Stream, newStream } from "../engine/stream.js";
import { type Outcome, RpcError, Status, withOutcome } from "../status.js";
import { Flag, type Frame, Kind } from "../wire/frame.js";
import { decodeJSON, encodeJSON } from "../wire/text.js";
import { type CallOptions, type Caller, begin } from "./call.js";
import { type Traits, checkName, type types } from "./declare.js";

/** What a declaration says of a stream. */
export interface StreamTraits extends Traits {
  /** Its items are bytes as they are, and no JSON: each is a Uint8Array. */
  readonly bytes?: boolean | undefined;
}

/** What a declaration says of a stream of the server's. */
export interface ServerStreamTraits<Request, Item> extends StreamTraits {
  /** Makes the request with which the stream is opened again after a gap, behind the last item that came. */
  readonly restart?: ((request: Request, last: Item | undefined) => Request) | undefined;
}

/** A call that is answered by items. */
export interface ServerStream<Request, Item> {
  readonly name: string;
  readonly traits: ServerStreamTraits<Request, Item>;
  readonly [types]?: { readonly serverStream: (request: Request) => Item };
}

/** A call that sends items, and is answered once. */
export interface ClientStream<Request, Item, Response> {
  readonly name: string;
  readonly traits: StreamTraits;
  readonly [types]?: { readonly clientStream: (request: Request, item: Item) => Response };
}

/** A call in which both sides send items: Up from the caller, Down from the handler. */
export interface BidiStream<Request, Up, Down> {
  readonly name: string;
  readonly traits: StreamTraits;
  readonly [types]?: { readonly bidiStream: (request: Request, item: Up) => Down };
}

/** Declares a call that is answered by items. */
export const serverStream = <Request, Item>(name: string, traits: ServerStreamTraits<Request, Item> = {}): ServerStream<Request, Item> => ({
  name: checkName(name),
  traits,
});

/** Declares a call that sends items, and is answered once. */
export const clientStream = <Request, Item, Response>(name: string, traits: StreamTraits = {}): ClientStream<Request, Item, Response> => ({
  name: checkName(name),
  traits,
});

/** Declares a call in which both sides send items. */
export const bidiStream = <Request, Up, Down>(name: string, traits: StreamTraits = {}): BidiStream<Request, Up, Down> => ({
  name: checkName(name),
  traits,
});

/** Any declaration of a stream. */
export interface StreamDeclaration {
  readonly name: string;
  readonly traits: StreamTraits;
}

/** A stream that this side has opened. */
export interface Opened {
  stream: Stream;
  /** The end of the call, and its answer. */
  answer: Promise<Frame>;
  /** Ends the call: whoever used it has gone. */
  leave(reason?: unknown): void;
}

/** Opens a stream of any kind. It throws when it cannot be made at all. */
export function openStream(caller: Caller, declaration: StreamDeclaration, request: unknown, options: CallOptions, kind: Kind): Opened {
  const { engine } = caller.client;
  const sends = kind !== Kind.ServerStream;
  const give = (why: (outcome: Outcome) => RpcError) => engine.giveUp(call, why);
  const stream = newStream(engine, true, give);
  let settle!: (answer: Frame) => void;
  let fail!: (error: unknown) => void;
  const answer = new Promise<Frame>((resolve, reject) => {
    settle = resolve;
    fail = reject;
  });
  answer.catch(() => undefined); // whoever receives is told
  const call = begin(caller, declaration, request, options, {
    flags: kind | (sends ? 0 : Flag.NoItems),
    streams: true,
    sends,
    resends: Infinity,
    left: () => stream.begin(call.frame.id),
    ...(kind !== Kind.ClientStream && { item: stream.item }),
    ...(sends && { credit: stream.credit }),
    done(error, last) {
      if (error) fail(error);
      else settle(last!);
      stream.end(error);
      stream.drop();
    },
  });
  return {
    stream,
    answer,
    leave(reason = "this side left the stream") {
      const why = (outcome: Outcome) => canceled(outcome, reason);
      stream.fail(why("mayHaveRun"));
      give(why);
    },
  };
}

/** The bytes of an item. */
export const encodeItem = (value: unknown): Uint8Array => (value instanceof Uint8Array ? value : encodeJSON(value));

/** The item of some bytes. */
export function decodeItem(payload: Uint8Array, { name, traits }: StreamDeclaration): unknown {
  if (traits.bytes) return payload;
  try {
    return decodeJSON(payload);
  } catch (cause) {
    throw new RpcError(Status.Internal, `cannot decode an item of ${name}`, { cause });
  }
}

/** How items are received. */
export interface ReceiveOptions extends CallOptions {
  /**
   * Is told that the session was lost and items may be missing, once for each gap. With it a stream whose
   * declaration can be restarted is opened again; what it throws ends the loop. Without it the loop ends with the gap.
   */
  onGap?: ((error: RpcError) => void) | undefined;
}

/** How long an opened stream must have lived, or that it must have brought an item, to be opened again at once. */
const lived = 10_000;

/** Calls a stream of the server's, and ranges over what event makes of its items. */
export function follow<Value, Event>(
  caller: Caller,
  declaration: StreamDeclaration,
  request: unknown,
  { onGap, ...options }: ReceiveOptions,
  event: (value: Value, about: Item, afterGap: boolean) => Event,
  restart?: (request: never, last: Value | undefined) => unknown,
): AsyncIterableIterator<Event> {
  let open: Opened | undefined;
  let since = 0;
  let left = false;
  let gap = false;
  let empty = 0;
  let last: Value | undefined;

  const failed = async (error: unknown) => {
    open?.leave();
    open = undefined;
    if (left) return;
    if (!(error instanceof RpcError && error.gap && restart && onGap)) {
      left = true;
      throw gap && error instanceof RpcError && error.outcome === "notSent" ? withOutcome(error, "mayHaveRun") : error;
    }
    if (!gap) onGap(error);
    gap = true;
    empty = Date.now() - since < lived ? empty + 1 : 0;
    const { min = 100, max = 30_000 } = caller.client.options.backoff ?? {};
    if (empty) await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(max, min * 2 ** empty)));
    request = restart(request as never, last);
  };

  return {
    async next() {
      while (!left) {
        try {
          since = open ? since : Date.now();
          open ??= openStream(caller, declaration, request, options, Kind.ServerStream);
          const item = await open.stream.next();
          if (!item) break;
          last = decodeItem(item.payload, declaration) as Value;
          const value = event(last, item, gap);
          gap = false;
          empty = 0;
          return { value, done: false };
        } catch (error) {
          await failed(error);
        }
      }
      left = true;
      return { value: undefined, done: true };
    },
    return() {
      left = true;
      open?.leave();
      return Promise.resolve({ value: undefined, done: true });
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/**
 * Calls a stream of the server's and ranges over its items. The call is made with the first item that is asked for;
 * leaving the loop ends it. After the last item the loop ends, or throws the {@link RpcError} that the stream ended with.
 */
export const receive = <Request, Item>(
  caller: Caller,
  declaration: ServerStream<Request, Item>,
  request: NoInfer<Request>,
  options: ReceiveOptions = {},
): AsyncIterableIterator<Item> => follow(caller, declaration, request, options, (value: Item) => value, declaration.traits.restart);

/**
 * Calls a stream of the caller's: sends all items, and resolves with the answer. It waits while the handler is
 * behind. What items throws ends the call, and is what it rejects with. When the handler answers early, the rest of
 * items is not asked for.
 */
export async function sendAll<Request, Item, Response>(
  caller: Caller,
  declaration: ClientStream<Request, Item, Response>,
  request: NoInfer<Request>,
  items: Iterable<Item> | AsyncIterable<Item>,
  options: CallOptions = {},
): Promise<Response> {
  const { stream, answer, leave } = openStream(caller, declaration, request, options, Kind.ClientStream);
  let ended = false;
  const pump = async () => {
    for await (const item of items) {
      if (ended) return;
      const payload = encodeItem(item);
      try {
        await stream.send(payload);
      } catch {
        return; // the call has ended, and says why
      }
    }
    stream.close();
  };
  let broken: unknown;
  const pumped = pump().catch((error: unknown) => {
    broken = { error };
    leave(error);
  });
  try {
    const { payload } = await answer;
    return decodeJSON(payload) as Response;
  } catch (error) {
    await Promise.race([pumped, undefined]);
    throw broken ? (broken as { error: unknown }).error : error;
  } finally {
    ended = true;
  }
}

/** One side of a stream in both directions: Out is what this side sends, In what it receives. */
export interface Duplex<Out, In> extends AsyncIterable<In> {
  /** Sends an item. It waits while the other side is behind. */
  send(item: Out): Promise<void>;
  /** Says that this side sends no more. What a handler sends ends when it returns: there it does nothing. */
  end(): void;
  /** Ends the stream from this side; reason is what is thrown here then. */
  cancel(reason?: unknown): void;
}

/** Opens a stream in both directions. Leaving its loop does not end it: cancel, or the handler's return, does. */
export function open<Request, Up, Down>(
  caller: Caller,
  declaration: BidiStream<Request, Up, Down>,
  request: NoInfer<Request>,
  options: CallOptions = {},
): Duplex<Up, Down> {
  const { stream, leave } = openStream(caller, declaration, request, options, Kind.BidiStream);
  return duplex(stream, declaration, leave);
}

/** A stream with its types. */
export const duplex = <Out, In>(stream: Stream, declaration: StreamDeclaration, cancel: (reason?: unknown) => void): Duplex<Out, In> => ({
  send: (item) => stream.send(encodeItem(item)),
  end: () => stream.close(),
  cancel,
  async *[Symbol.asyncIterator]() {
    for (let item; (item = await stream.next()); ) yield decodeItem(item.payload, declaration) as In;
  },
});
