import { bucket } from "../session/bucket.js";
import type { Above } from "../session/session.js";
import { type Outcome, RpcError, Status, because, hint, refuse, withOutcome } from "../status.js";
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
  /** Calls that have a place, the streams among them, their bytes, and of these those of calls that have passed a larger one. */
  let slots = 0;
  let flowing = 0;
  let held = 0;
  let passing = 0;
  /** The peer said GOAWAY: it takes no more calls. */
  let away = false;
  /** That streams have all their places was told. */
  let crowded = false;

  /** Gives a call its place, or takes it back. */
  const place = ({ cost, streams, passes }: Call, count: 1 | -1) => {
    slots += count;
    held += count * cost;
    if (streams) flowing += count;
    if (passes) passing += count * cost;
  };
  /** Whether there is a place for a call, whatever its bytes, … */
  const isFree = ({ streams }: Call) => slots < engine.peer.calls && !(streams && flowing >= streamPlaces(engine.peer));
  /** … and whether there is room for these. */
  const fits = ({ cost }: Call) => !held || held + cost <= engine.peer.budget;
  /**
   * How many bytes a call may have that passes front, which waits for room: what front could not use, and while front
   * waits for others than those that have passed it an eighth of the budget at least. So neither starves.
   */
  const spare = (front: Call) => {
    const { budget } = engine.peer;
    const beside = Math.max(0, budget - front.cost);
    return (held - passing > beside ? Math.max(beside, budget / 8) : beside) - passing;
  };
  /** Says what a call lacks that has not left. */
  const lack = (call: Call): RpcError => {
    const { calls, budget } = engine.peer;
    const full = `all ${calls} places are taken, ${flowing} of them by streams`;
    const crowded = `all ${flowing} places that streams may have are taken`;
    const text = slots >= calls ? full : isFree(call) ? `${call.cost} bytes find no room among the ${budget} that the peer holds` : crowded;
    return noLink(engine) ?? (away ? refuse(Status.Unavailable, "the peer is shutting down") : refuse(Status.ResourceExhausted, text));
  };
  /** Whether a call waits for a link when there is none. */
  const waits = ({ nested, failFast }: Call) => !nested && !failFast;
  /** Calls that have not left. */
  const unsent = () => {
    fragments?.gather();
    return [...[...queue].filter(isCall).filter((call) => !call.sent), ...waiting];
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
    if (streams && !engine.features.includes("streams")) return refuse(Status.Unimplemented, "the peer takes no streams");
    return tooLarge(frame, engine.peer.message) ?? repeat?.claim(engine.cache, !!lost);
  };
  /** Gives a call its place, and to the writer. */
  const go = (call: Call, passes: boolean) => {
    const refusal = cannot(call);
    if (refusal) return settle(call, refusal);
    call.passes = passes;
    place(call, 1);
    queue.add(call);
  };
  /** Moves waiting calls into free places, the oldest first; but none that has all that it needs waits for one that does not. */
  const admit = () => {
    /** The oldest that waits for nothing but room. */
    let front: Call | undefined;
    /** A serial one waits, which others do not pass. */
    let serial: boolean | undefined = false;
    for (const call of waiting) {
      if (!engine.session || away || slots >= engine.peer.calls) return;
      const able = isFree(call) && !(serial && call.ordered);
      if (able && fits(call) && !(front && call.cost > spare(front))) {
        waiting.delete(call);
        go(call, !!front);
        continue;
      }
      serial ||= call.ordered;
      if (able) front ??= call;
      else if (call.streams && !crowded) {
        crowded = true;
        console.warn(`typedrpc: ${lack(call).message}; more of them wait`);
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
    unlinked: Date.now(),
    why: undefined,
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
    counts(turn) {
      if (!isCall(turn)) return;
      const { frame, repeat, deadline } = turn;
      frame.id = ++engine.lastID;
      frame.timeLeft = deadline && Math.max(1, deadline - Date.now());
      if (repeat) frame.metadata = repeat.stamp(frame.metadata);
      pending.set(frame.id, turn);
    },
    send(turn, frame, session) {
      if (!session.fits(frame)) return Turned.Full;
      engine.counts(turn);
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
      away = !body.error; // after that the peer closes
      supervisor.goAway(body);
      const calls = unsent();
      for (const call of calls) {
        if (!waits(call) || !queue.delete(call)) continue;
        place(call, -1);
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
      const goes = engine.session && !away && isFree(call) && fits(call);
      if (engine.closed) return settle(call, engine.closed);
      if ((failFast && (engine.unlinked || away)) || (nested && !goes)) return settle(call, lack(call));
      if (nested || (goes && !waiting.size)) go(call, waiting.size > 0);
      else waiting.add(call);
      engine.wake();
    },
    giveUp(call, why) {
      if (call.settled) return;
      const { id } = call.frame;
      const begun = pending.get(id) === call;
      // What it still waits for, or would have to.
      const lacked = !engine.closed && (waiting.has(call) || engine.unlinked) ? lack(call) : undefined;
      if (!waiting.delete(call)) {
        engine.remove(call);
        if (!begun) {
          place(call, -1);
        } else if (fragments?.drop(id) === Type.Result) {
          // Its handler has returned: the rest of the answer is dropped as it comes, and nothing else will.
          pending.delete(id);
          place(call, -1);
        } else {
          queue.add({ frame: makeFrame(Type.Cancel, { id, fromCaller: true }) });
        }
      }
      settle(call, why ? because(why(begun ? "mayHaveRun" : "notSent"), lacked) : lacked);
      engine.wake();
    },
    answered(frame) {
      const { id, type, flags, code } = frame;
      const call = pending.get(id);
      if (!call) return engine.offended();
      fragments?.drop(id);
      pending.delete(id);
      place(call, -1);
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
      engine.unlinked = Date.now();
      for (const call of unsent()) if (call.failFast) engine.giveUp(call);
    },
    lost(cause, again) {
      const calls = unsent();
      const turns = [...queue];
      const begun = [...pending.values()];
      const failed: (() => void)[] = [];
      const without = noLink(engine);
      const kept: Call[] = [];
      const fail = (call: Call, outcome: Outcome) => {
        const gap = call.streams && outcome === "mayHaveRun";
        const said = "the connection was lost";
        const error = new RpcError(Status.Unavailable, `${said}: ${cause.message}`, { outcome, cause, gap, said });
        failed.push(() => settle(call, because(error, without)));
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
      slots = flowing = held = passing = engine.lastPeerID = engine.credits = 0;
      away = crowded = false;
      engine.unlinked ||= Date.now();
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

const isCall = (turn: Turn): turn is Call => "done" in turn;

/** How many of its places for calls a peer lets streams have: an eighth is kept for calls (PROTOCOL.md section 4). */
export const streamPlaces = ({ calls }: Limits): number => Math.max(1, Math.floor((calls * 7) / 8));

/** For how long there has been no link, and why; undefined: there is one. */
export function noLink({ unlinked, why: cause }: Engine): RpcError | undefined {
  const said = "no connection";
  const reason = cause ? `: ${cause.message}` : "";
  return unlinked ? refuse(Status.Unavailable, `${said} for ${Date.now() - unlinked} ms${reason}`, { cause, said }) : undefined;
}

/** Says why a message cannot be sent to a peer that takes so many bytes. */
export function tooLarge({ payload: { length } }: Frame, most: number): RpcError | undefined {
  return length > most ? refuse(Status.ResourceExhausted, `${length} bytes are too many, the peer takes ${most}`) : undefined;
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
