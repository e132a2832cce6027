import type { WithoutLink } from "../client/options.js";
import { canceled, costOf, sizeOfMetadata } from "../engine/call.js";
import type { Call, Key } from "../engine/turn.js";
import { RpcError, Status, refuse } from "../status.js";
import { Flag, type Frame, type Metadata, Type, makeFrame, mostMetadata, noMetadata } from "../wire/frame.js";
import { decodeJSON, encodeJSON } from "../wire/text.js";
import type { Conn } from "./conn.js";
import type { Method, Traits } from "./declare.js";
import type { Context } from "./serve.js";

/** Who calls: a connection, or what a handler is given to call back with. */
export type Caller = Conn | Context;

/** How a call is made. */
export interface CallOptions {
  /** Ends the call: it fails with Canceled, or with DeadlineExceeded for a signal of AbortSignal.timeout. */
  signal?: AbortSignal | undefined;
  /** How long it may take in milliseconds, the wait for a link included. Default: the declaration's; 0: for ever. */
  timeout?: number | undefined;
  /** Texts that travel beside the request. */
  metadata?: Metadata | undefined;
  /** Is given the texts that came beside the answer. */
  onReply?: ((metadata: Metadata) => void) | undefined;
  /** What it does while there is no link. Default: the connection's. */
  withoutLink?: WithoutLink | undefined;
  /** The key of a keyed call, for one that repeats another. Default: a new one. */
  key?: Key | undefined;
}

/** Timers are over at once that are to last longer: 24 days. */
const mostTimeout = 2 ** 31 - 1;

/** A frame with a message. It throws when the message cannot be sent. */
export function messageFrame(type: Type, name: string, value: unknown, metadata = noMetadata): Frame {
  let frame: Frame;
  try {
    frame = makeFrame(type, { method: name, metadata, payload: encodeJSON(value) });
  } catch (cause) {
    throw refuse(Status.InvalidArgument, `cannot encode a message of ${name}`, { cause });
  }
  if (sizeOfMetadata(frame) > mostMetadata) throw refuse(Status.InvalidArgument, "too much metadata");
  return frame;
}

/** Begins a call of any kind. It throws when it cannot be made at all. */
export function begin(
  { client, nested, ordered }: Caller,
  { name, traits }: { name: string; traits: Traits },
  request: unknown,
  options: CallOptions,
  kind: Pick<Call, "done"> & Partial<Call> & { flags?: number },
): Call {
  const { engine } = client;
  const { flags = 0, streams = false, sends = false, resends = 0, left, item, credit } = kind;
  const { signal, withoutLink = client.options.withoutLink, onReply } = options;
  const timeout = Math.min(options.timeout ?? traits.timeout ?? 0, mostTimeout);
  if (signal?.aborted) throw canceled("notSent", signal.reason);
  const repeat = traits.keyed?.(options.key);
  const frame = messageFrame(Type.Call, name, request, repeat ? { ...options.metadata, ...repeat.metadata } : options.metadata);
  frame.fromCaller = true;
  frame.flags = flags | (ordered ? Flag.Lane : 0);
  const abort = () => engine.giveUp(call, (outcome) => canceled(outcome, signal?.reason));
  const late = () => engine.giveUp(call, (outcome) => new RpcError(Status.DeadlineExceeded, "the call took too long", { outcome }));
  // All that a call will ever have is there from the start: objects that grow are slow.
  const call: Call = {
    frame,
    streams,
    sends,
    resends,
    left,
    item,
    credit,
    sent: 0,
    order: 0,
    passes: false,
    lost: false,
    settled: false,
    cost: costOf(frame),
    idempotent: traits.idempotent,
    ordered: traits.serial,
    failFast: withoutLink === "fail",
    nested,
    repeat,
    deadline: timeout && Date.now() + timeout,
    done(error, answer) {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      if (answer && onReply) queueMicrotask(() => onReply(answer.metadata));
      kind.done(error, answer);
    },
  };
  const timer = timeout ? setTimeout(late, timeout) : undefined;
  signal?.addEventListener("abort", abort);
  engine.start(call);
  return call;
}

/**
 * Calls a method. It rejects with an {@link RpcError}: the handler's, or one whose outcome says how far the call
 * got.
 */
export const call = <Request, Response>(
  caller: Caller,
  method: Method<Request, Response>,
  request: NoInfer<Request>,
  options: CallOptions = {},
): Promise<Response> =>
  new Promise((resolve, reject) => {
    begin(caller, method, request, options, {
      done(error, answer) {
        try {
          if (error) reject(error);
          else resolve(decodeJSON(answer!.payload) as Response);
        } catch (cause) {
          reject(new RpcError(Status.Internal, `cannot decode the answer of ${method.name}`, { outcome: "answered", cause }));
        }
      },
    });
  });
