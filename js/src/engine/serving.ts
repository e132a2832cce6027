import { RpcError, Status, mostHint } from "../status.js";
import { Close, CloseCode } from "../wire/close.js";
import { Flag, type Frame, type Kind, Type, faultName, makeFrame, mostMetadata, mostName, noBytes, noMetadata } from "../wire/frame.js";
import { encodeJSON } from "../wire/text.js";
import { costOf, sizeOfMetadata } from "./call.js";
import { type Engine, type Incoming, type Part, streamPlaces, tooLarge } from "./engine.js";
import { type Stream, newStream } from "./stream.js";

/** What handles the peer's calls of a name. */
export interface Handler {
  readonly name: string;
  /** undefined: notifications. */
  readonly kind: Kind | undefined;
  /** It runs in order with the notifications and the other serial ones. */
  readonly serial: boolean;
  /** Handles one; the answer's payload is what it resolves with. */
  run(served: Served): Promise<Uint8Array>;
}

/** A call or notification of the peer's that is being handled. */
export interface Served {
  readonly frame: Frame;
  /** It holds up the notifications behind it, or was made by one that does: what could wait for itself fails. */
  readonly ordered: boolean;
  /** Its items, where it is a stream. */
  readonly stream: Stream | undefined;
  /** Ends when the caller gave up, its time is over, the session is lost, or the handler has returned. */
  readonly controller: AbortController;
  /** Texts that go back beside the answer. */
  reply: Record<string, string>;
}

/** A call of the peer's. */
interface Inbound extends Served {
  readonly handler: Handler;
  /** Of its request not all has come. */
  partial: boolean;
  timer: ReturnType<typeof setTimeout> | undefined;
}

/** The peer's calls and notifications, and their handlers. */
export interface Serving extends Part, Incoming {
  readonly handlers: Map<string, Handler>;
}

/** What a stranger learns of an error that is no {@link RpcError}. */
const internalText = "internal error";
/** Bytes of an error's text, at most. */
const mostText = 8 << 10;
/** Bytes of its data, at most. */
const mostData = 64 << 10;

/** Makes the part of an engine that handles what the peer calls. */
export function serving(engine: Engine): Serving {
  const { limits } = engine;
  const handlers = new Map<string, Handler>();
  const inbound = new Map<number, Inbound>();
  /** Bytes of the requests of those. */
  let held = 0;
  /** What runs one after another, and the bytes of the notifications among it. */
  let lane: (() => Promise<void>)[] = [];
  let laneBytes = 0;
  let busy = false;
  /** Notifications that were handled and are not credited, and their bytes. */
  let taken = 0;
  let spent = 0;

  const end = (id: number) => {
    const call = inbound.get(id);
    if (!call) return;
    inbound.delete(id);
    held -= costOf(call.frame);
    clearTimeout(call.timer);
  };
  /** Answers a call whose handler has returned. */
  const answer = (call: Inbound, frame: Frame) => {
    const { id } = call.frame;
    if (inbound.get(id) !== call) return; // its session is over
    end(id);
    if (call.stream) call.stream.close(frame);
    else engine.push({ frame });
    call.controller.abort(new RpcError(Status.Canceled, "the handler has returned"));
  };
  const run = async (call: Inbound) => {
    const { id } = call.frame;
    const { reply: metadata } = call;
    try {
      const frame = makeFrame(Type.Result, { id, metadata, payload: await call.handler.run(call) });
      const refusal = tooLarge(frame, engine.peer.message);
      if (refusal) throw refusal;
      if (sizeOfMetadata(frame) > mostMetadata) throw new Error("too much metadata");
      answer(call, frame);
    } catch (err) {
      answer(call, failure(call, err));
    }
  };
  const begin = (call: Inbound) => {
    call.partial = false;
    if (call.handler.serial) enqueue(() => run(call));
    else void run(call);
  };
  const enqueue = (work: () => Promise<void>) => {
    lane.push(work);
    if (busy) return;
    busy = true;
    void (async () => {
      for (let next; (next = lane.shift()); ) await next();
      busy = false;
      engine.wake(); // a connection that winds down may have waited for that
    })();
  };
  /** Says why a call cannot run; undefined: it can. */
  const refusal = (frame: Frame, handler: Handler | undefined): [code: number, text: string] | undefined => {
    const kind = frame.flags & Flag.Kind;
    const { length } = frame.payload;
    if (engine.closed) return [Status.Unavailable, "shutting down"];
    if (handler?.kind !== kind || (kind && !engine.features.includes("streams"))) return [Status.Unimplemented, "no such method"];
    if (length > limits.message) return [Status.ResourceExhausted, "the request is too large"];
    const streams = [...inbound.values()].filter(({ stream }) => stream).length;
    if (inbound.size >= limits.calls || (kind && streams >= streamPlaces(limits)) || (held && held + costOf(frame) > limits.budget)) {
      engine.offended();
      return [Status.ResourceExhausted, "too much is being handled"];
    }
    if (handler.serial && frame.flags & Flag.Lane && busy) return [Status.FailedPrecondition, "an ordered handler must not wait for the lane"];
  };
  /** What an abandoned call's handler is told. */
  const abort = (call: Inbound, error: RpcError) => {
    call.stream?.fail(error);
    call.controller.abort(error);
  };
  const abortAll = (error: RpcError) => {
    for (const [id, call] of [...inbound]) {
      end(id);
      abort(call, error);
    }
  };

  const mine: Serving = {
    handlers,
    call(frame) {
      const { id, method, flags, timeLeft } = frame;
      const handler = handlers.get(method);
      const refused = refusal(frame, handler);
      if (refused) {
        engine.refuse(id, ...refused);
        return false;
      }
      const late = () => abort(call, new RpcError(Status.DeadlineExceeded, "the caller's time is over"));
      const call: Inbound = {
        frame,
        handler: handler!,
        ordered: handler!.serial || (flags & Flag.Lane) > 0,
        stream:
          flags & Flag.Kind
            ? newStream(engine, false, (why) => {
                abort(call, why("mayHaveRun"));
              })
            : undefined,
        controller: new AbortController(),
        reply: {},
        partial: frame.more,
        timer: timeLeft ? setTimeout(late, Math.min(timeLeft, 2 ** 31 - 1)) : undefined,
      };
      inbound.set(id, call);
      held += costOf(frame);
      call.stream?.begin(id);
      if (flags & Flag.NoItems) call.stream?.end();
      if (!frame.more) begin(call);
      return true;
    },
    whole(id, whole) {
      const call = inbound.get(id);
      if (!call?.partial) return;
      if (!whole) {
        end(id);
        return engine.refuse(id, Status.ResourceExhausted, "the request is too large");
      }
      held += whole.payload.length - call.frame.payload.length;
      call.frame.payload = whole.payload;
      begin(call);
    },
    notify(frame) {
      const handler = handlers.get(frame.method);
      const cost = costOf(frame);
      if (laneBytes && laneBytes + cost > 2 * limits.window + limits.message) throw new Close(CloseCode.Flood);
      laneBytes += cost;
      const { session } = engine;
      enqueue(async () => {
        if (session !== engine.session) return;
        const controller = new AbortController();
        try {
          if (handler && handler.kind === undefined && !frame.more) {
            await handler.run({ frame, ordered: true, stream: undefined, controller, reply: {} });
          }
        } catch (err) {
          console.error(`typedrpc: the handler of ${frame.method} failed`, err);
        }
        controller.abort();
        if (session !== engine.session) return;
        laneBytes -= cost;
        taken++;
        spent += cost;
        // With only the first rule a small and a large one make both sides wait for ever.
        if (spent < limits.window / 2 && lane.length) return;
        engine.credits += taken;
        taken = spent = 0;
        engine.wake();
      });
    },
    about(frame) {
      const { id, type } = frame;
      const call = inbound.get(id);
      const { stream } = call ?? {};
      if (!call) return;
      if (type === Type.Cancel) {
        engine.dropPart(id, true);
        if (!call.partial) return abort(call, new RpcError(Status.Canceled, "the caller gave up"));
        end(id);
        engine.refuse(id, Status.Canceled, "canceled");
      } else if (!stream) {
        engine.offended();
      } else if (type === Type.Item) {
        stream.item(frame);
      } else if (type === Type.Credit) {
        stream.credit(frame);
      } else {
        stream.end();
      }
    },
    lost() {
      abortAll(new RpcError(Status.Unavailable, "the session was lost", { gap: true }));
      lane = [];
      laneBytes = taken = spent = 0;
    },
    closed: abortAll,
    busy: () => inbound.size > 0 && !engine.closed,
  };
  engine.incoming = mine;
  return mine;
}

/** The FAIL that an error of a handler's is sent as. */
function failure({ frame: { id, method }, reply }: Inbound, err: unknown): Frame {
  delete reply[faultName]; // a program's own would pass for ours
  const metadata = sizeOfMetadata({ metadata: reply }) > mostMetadata - 2 * mostName ? noMetadata : reply;
  const fail = makeFrame(Type.Fail, { id, metadata, code: Status.Internal, message: internalText });
  if (err instanceof RpcError) {
    const { code, message, said = message, fault = "", data, retryAfter = 0 } = err;
    try {
      const payload = data === undefined ? noBytes : encodeJSON(data);
      const wait = retryAfter > 0 ? Math.min(Math.ceil(retryAfter), mostHint) : 0;
      const frame = { ...fail, code, message: said.slice(0, mostText / 3), retryAfter: wait };
      if (payload.length <= mostData) return { ...frame, fault, payload };
      console.error(`typedrpc: the data of an error of ${method} is too large`);
      return frame;
    } catch (cause) {
      err = cause; // its data is no JSON
    }
  }
  console.error(`typedrpc: the handler of ${method} failed`, err);
  return fail;
}
