import { bucket } from "../session/bucket.js";
import type { Above } from "../session/session.js";
import { type Outcome, RpcError, Status, hint, withOutcome } from "../status.js";
import { type Limits, defaultLimits } from "../wire/body.js";
import { Close, CloseCode } from "../wire/close.js";
import { Flag, type Frame, Type, makeFrame } from "../wire/frame.js";
import { decodeJSON, malformed } from "../wire/text.js";
import type { Fragments, FragmentsMaker } from "./fragments.js";
import type { Engine, Part } from "./interface.js";
import { type Call, type Turn, Turned } from "./turn.js";

export type { Engine, Incoming, Part } from "./interface.js";

/** How often a call is sent again after its session was lost: one that kills its server must not do so for ever. */
const mostResends = 8;
/** What a frame's body holds, less room for the rest of the frame. */
const mostMessage = (16 << 20) - (64 << 10);
/** Turns that may wait, beyond which a peer evidently does not read the answers that it makes us give. */
const mostQueued = 1 << 16;

/** Makes the engine of a connection. */
export function newEngine(limits: Limits, supervisor: Pick<Above, "goAway" | "authOK">, makeFragments?: FragmentsMaker): Engine {
  const pending = new Map<number, Call>();
  const queue = new Set<Turn>();
  const parts = new Map<unknown, Part>();
  /** Calls for which the peer, or a link, has no place yet. */
  let waiting = new Set<Call>();
  /** Calls that have a place, and their bytes. */
  let slots = 0;
  let held = 0;
  /** The peer said GOAWAY: it takes no more calls. */
  let away = false;

  const isFull = ({ cost }: Call) =>
    !engine.session || away || slots >= engine.peer.calls || (held > 0 && held + cost > engine.peer.budget);
  const vacate = ({ cost }: Call) => {
    slots--;
    held -= cost;
  };
  /** Whether a call waits for a link when there is none. */
  const waits = ({ nested, failFast }: Call) => !nested && !failFast;
  /** Calls that have not left. */
  const unsent = () => {
    fragments?.gather();
    return [...([...queue].filter((turn) => "done" in turn && !turn.sent) as Call[]), ...waiting];
  };
  /** Lets calls wait, in the order in which they were made. */
  const wait = (calls: Call[]) => {
    waiting = new Set(calls.sort((a, b) => (a.order || Infinity) - (b.order || Infinity)));
  };
  const settle = (call: Call, error?: RpcError, answer?: Frame) => {
    if (call.settled) return;
    call.settled = true;
    if (error && call.repeat) error = call.repeat.failed(error, answer);
    if (error?.outcome === "notSent" && call.lost) error = withOutcome(error, "mayHaveRun");
    call.done(error, answer);
  };
  /** Says why the peer cannot take a call at all. */
  const cannot = ({ frame, streams, repeat, lost }: Call): RpcError | undefined => {
    if (streams && !engine.features.includes("streams")) return new RpcError(Status.Unimplemented, "the peer takes no streams");
    return tooLarge(frame, engine.peer.message) ?? repeat?.claim(engine.cache, !!lost);
  };
  /** Moves waiting calls into free places. */
  const admit = () => {
    for (const call of waiting) {
      if (isFull(call)) return;
      waiting.delete(call);
      const refusal = cannot(call);
      if (refusal) {
        settle(call, refusal);
      } else {
        slots++;
        held += call.cost;
        queue.add(call);
      }
    }
  };

  const engine: Engine = {
    ...supervisor,
    limits,
    peer: defaultLimits,
    features: [],
    cache: "",
    session: undefined,
    linked: false,
    closed: undefined,
    parting: undefined,
    lastID: 0,
    lastPeerID: 0,
    credits: 0,
    unread: 0,
    pending,
    queue,
    incoming: {
      call({ id }) {
        engine.refuse(id, Status.Unimplemented, "no handler");
        return false;
      },
      whole: malformed as never,
      notify: () => void engine.credits++,
      about: () => undefined,
    },
    credited: () => malformed("credit"),
    offended: bucket(),
    called(frame) {
      if (frame.id <= engine.lastPeerID) malformed("ids rise");
      engine.lastPeerID = frame.id;
      return engine.incoming.call(frame);
    },

    part<T extends Part>(make: (engine: Engine) => T) {
      if (!parts.has(make)) parts.set(make, make(engine));
      return parts.get(make) as T;
    },
    wake: () => engine.session?.link?.wake(),
    push(turn) {
      queue.add(turn);
      engine.wake();
    },
    remove(turn) {
      queue.delete(turn);
      fragments?.remove(turn);
    },
    send(turn, frame, session) {
      if (!session.fits(frame)) return Turned.Full;
      turn.counts?.();
      session.add(frame);
      turn.left?.();
      return Turned.Done;
    },
    refuse(id, code, message) {
      if (queue.size > mostQueued) throw new Close(CloseCode.Flood);
      engine.push({ frame: makeFrame(Type.Fail, { id, flags: Flag.NotRun, code, message }) });
    },

    dropPart: (id, fromCaller) => void fragments?.drop(id, fromCaller),

    // The session's.
    take(session) {
      const credit = makeFrame(Type.Credit, { items: engine.credits });
      if (engine.credits && session.fits(credit)) {
        session.add(credit);
        engine.credits = 0;
      }
      for (const part of parts.values()) part.take?.(session);
      admit();
      for (const turn of queue) {
        const turned = turn.turn ? turn.turn(session) : engine.send(turn, turn.frame, session);
        if (turned === Turned.Full) return;
        queue.delete(turn);
        if (turned === Turned.More) queue.add(turn);
      }
    },
    receive(first) {
      const frame = first.more || first.type === Type.Chunk ? (fragments ?? malformed("fragments")).receive(first) : first;
      if (!frame) return;
      const { type, id, fromCaller } = frame;
      const call = pending.get(id);
      if (type === Type.Call) {
        engine.called(frame);
      } else if (type === Type.Notify) {
        engine.incoming.notify(frame);
      } else if (type === Type.Result || type === Type.Fail) {
        engine.answered(frame);
      } else if (type === Type.Credit && !id) {
        engine.credited(frame);
      } else if (type === Type.Cancel || type === Type.End || fromCaller) {
        if (id > engine.lastPeerID) engine.offended();
        else engine.incoming.about(frame);
      } else if (call && !call.settled) {
        ((type === Type.Item ? call.item : call.credit) ?? engine.offended)(frame);
      } else if (id > engine.lastID) {
        engine.offended();
      }
    },
    goAway(body) {
      away = true;
      supervisor.goAway(body);
      const calls = unsent();
      for (const call of calls) {
        if (!waits(call) || !queue.delete(call)) continue;
        vacate(call);
        waiting.add(call);
      }
      wait(calls.filter((call) => waiting.has(call)));
    },
    goodbye() {
      if (queue.size || [...parts.values()].some((part) => part.busy?.())) return;
      if (away && !pending.size) return new Close(CloseCode.Done);
      return engine.parting;
    },

    // Our calls.
    start(call) {
      const { nested, failFast } = call;
      let refusal = engine.closed;
      if ((failFast && !engine.linked) || (nested && !engine.session)) refusal ??= noLink();
      if (away && !waits(call)) refusal ??= new RpcError(Status.Unavailable, "the peer is shutting down");
      if (nested && (waiting.size || isFull(call))) refusal ??= new RpcError(Status.ResourceExhausted, "the peer has no place for the call");
      if (refusal) return settle(call, refusal);
      waiting.add(call);
      engine.wake();
    },
    giveUp(call, why) {
      if (call.settled) return;
      const { id } = call.frame;
      const begun = pending.get(id) === call;
      if (!waiting.delete(call)) {
        engine.remove(call);
        if (!begun) {
          vacate(call);
        } else if (fragments?.drop(id) === Type.Result) {
          // Its handler has returned: the rest of the answer is dropped as it comes, and nothing else will.
          pending.delete(id);
          vacate(call);
        } else {
          queue.add({ frame: makeFrame(Type.Cancel, { id, fromCaller: true }) });
        }
      }
      settle(call, why(begun ? "mayHaveRun" : "notSent"));
      engine.wake();
    },
    answered(frame) {
      const { id, type, flags, code } = frame;
      const call = pending.get(id);
      if (!call) return engine.offended();
      fragments?.drop(id);
      pending.delete(id);
      vacate(call);
      engine.remove(call); // refused before the whole of it was sent
      if (type !== Type.Fail) return settle(call, undefined, frame);
      const unavailable = code === Status.Unavailable && away;
      if (unavailable && flags & Flag.NotRun && !call.settled && waits(call) && !call.sends) {
        // A draining server's: in front of what was made after it.
        call.order = id;
        wait([call, ...waiting]);
      } else {
        settle(call, fromPeer(frame, unavailable && !!call.streams), frame);
      }
    },

    // The supervisor's.
    opened(session, { limits, cache }, features) {
      const { message, calls, window, budget } = limits;
      // What a peer allows is not all used: accounts are kept of it.
      const peer = { message: Math.min(message, mostMessage), calls, window: Math.min(window, 16 << 20), budget: Math.min(budget, 64 << 20) };
      Object.assign(engine, { session, peer, features, cache });
      away = false;
      for (const part of parts.values()) part.opened?.();
    },
    linkDown() {
      engine.linked = false;
      for (const call of unsent()) if (call.failFast) engine.giveUp(call, noLink);
    },
    lost(cause, again) {
      const calls = unsent();
      const turns = [...queue];
      const begun = [...pending.values()];
      const failed: (() => void)[] = [];
      const kept: Call[] = [];
      const fail = (call: Call, outcome: Outcome) => {
        const gap = call.streams && outcome === "mayHaveRun";
        failed.push(() => settle(call, new RpcError(Status.Unavailable, "the connection was lost", { outcome, cause, gap })));
      };
      for (const call of begun) {
        const { repeat, idempotent, resends = 0 } = call;
        if (call.settled) continue;
        if (again && waits(call) && resends < mostResends && (repeat ? repeat.remembered() : idempotent)) {
          repeat?.lost();
          Object.assign(call, { order: call.frame.id, lost: true, resends: resends + 1, sent: 0 });
          kept.push(call);
        } else {
          fail(call, "mayHaveRun");
        }
      }
      for (const call of calls) {
        if (again && waits(call)) kept.push(call);
        else fail(call, "notSent");
      }
      pending.clear();
      queue.clear();
      fragments?.clear();
      slots = held = engine.lastPeerID = engine.credits = 0;
      away = engine.linked = false;
      engine.session = undefined;
      wait(kept);
      for (const part of parts.values()) part.lost?.(again, turns);
      for (const settle of failed) settle();
    },
    close(error) {
      engine.closed = error;
      for (const call of unsent()) engine.giveUp(call, (outcome) => withOutcome(error, outcome));
      for (const call of pending.values()) {
        engine.remove(call);
        settle(call, withOutcome(error, "mayHaveRun"));
      }
      for (const part of parts.values()) part.closed?.(error);
    },
  };
  const fragments: Fragments | undefined = makeFragments?.(engine);
  return engine;
}

/** What a call fails with that would rather fail than wait for a link. */
export const noLink = (): RpcError => new RpcError(Status.Unavailable, "no connection at the moment");

/** Says why a message cannot be sent to a peer that takes so many bytes. */
export function tooLarge({ payload: { length } }: Frame, most: number): RpcError | undefined {
  return length > most ? new RpcError(Status.ResourceExhausted, `${length} bytes are too many, the peer takes ${most}`) : undefined;
}

/** The error that a FAIL says; data that cannot be read is none, and then it is of no fault. */
function fromPeer({ code, message, flags, fault, payload, retryAfter }: Frame, gap: boolean): RpcError {
  let data: unknown;
  try {
    if (payload.length) data = decodeJSON(payload);
  } catch {
    fault = "";
  }
  const outcome = flags & Flag.NotRun ? "notSent" : "answered";
  return new RpcError(code || Status.Unknown, message, { outcome, fault, data, retryAfter: hint(retryAfter), gap: gap && outcome === "answered" });
}
