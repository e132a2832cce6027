import { RpcError, Status } from "../status.js";
import { type Frame, Type, makeFrame } from "../wire/frame.js";
import { join, malformed } from "../wire/text.js";
import type { Engine } from "./engine.js";
import { type Turn, Turned, smallItem } from "./turn.js";

/** What cuts large messages, so that small ones need not wait for the whole of them, and puts them together. */
export interface Fragments {
  /** Takes a frame with MORE, or a CHUNK, and returns the message when it is whole. */
  receive(frame: Frame): Frame | undefined;
  /** Puts what waits for others back to the front of the queue, in its order. */
  gather(): void;
  /** Takes back what has left of a turn that has been taken out of the queue. */
  remove(turn: Turn): void;
  /** Gives up the unfinished message of a call that has ended, and returns its type. */
  drop(id: number, fromCaller?: boolean): number | undefined;
  /** The session is over. */
  clear(): void;
}

/** Makes what cuts and assembles messages. It is `fragments`. */
export type FragmentsMaker = (engine: Engine) => Fragments;

/** The largest payload that is sent whole, and the size of a fragment (PROTOCOL.md section 1.1). */
const fragmentBytes = 64 << 10;

/** A message of which parts have come. */
interface Part {
  frame: Frame;
  parts: Uint8Array[];
  size: number;
  /** It was refused: the rest is dropped. */
  over: boolean;
}

/** There is one message in parts at most for each call and sender, and one for the notifications, whose id is 0. */
const keyOf = (id: number, fromCaller: boolean): number => 2 * id + (fromCaller ? 1 : 0);

/**
 * Has large messages take turns with small ones, a fragment of 64 KiB at a time. It is an option of `connect`: a
 * page that sends and receives small messages alone does not need it.
 */
export const fragments: FragmentsMaker = (engine) => {
  const { queue, send } = engine;
  /** Those that wait until another has left in fragments. */
  const large = new Set<Turn>();
  /** Bytes of messages that are leaving in fragments; of those, the ordered one. */
  let cutting = 0;
  let midway: Turn | undefined;
  /** An ordered one waits in large, and so must those behind it. */
  let overtaken = false;
  /** Messages of which parts have come, whoever sent them. */
  const open = new Map<number, Part>();

  const inUse = () => engine.features.includes("fragments");
  const gather = () => {
    const rest = [...queue];
    if (large.size) queue.clear();
    for (const turn of [...large, ...rest]) queue.add(turn);
    large.clear();
    overtaken = false;
  };
  const later = (turn: Turn) => {
    large.add(turn);
    overtaken ||= !!turn.ordered;
    return Turned.Later;
  };
  /** What was leaving in fragments leaves no more: others may begin. */
  const uncut = (turn: Turn, frame: Frame) => {
    if (!turn.sent) return;
    turn.sent = 0;
    cutting -= frame.payload.length;
    if (turn === midway) midway = undefined;
    gather();
  };

  engine.send = (turn, frame, session) => {
    const { ordered, sent = 0 } = turn;
    const { length } = frame.payload;
    if (ordered && turn !== midway && (midway || overtaken)) return later(turn);
    if (!inUse() || length <= fragmentBytes) return send(turn, frame, session);
    // The peer assembles only so much at once; first come, first served.
    if (!sent && (large.size || (cutting && cutting + length > engine.peer.budget))) return later(turn);
    const payload = frame.payload.subarray(sent, sent + fragmentBytes);
    if (!session.fits({ ...frame, payload })) return Turned.Full;
    if (!sent) {
      engine.counts(turn);
      cutting += length;
      if (ordered) midway = turn;
    }
    turn.sent = sent + payload.length;
    const { id, fromCaller } = frame;
    const more = turn.sent < length;
    session.add(sent ? makeFrame(Type.Chunk, { id, fromCaller, payload, more }) : { ...frame, payload, more });
    if (more) return Turned.More;
    uncut(turn, frame);
    turn.left?.();
    return Turned.Done;
  };

  const close = (key: number, part: Part) => {
    open.delete(key);
    if (!part.over) engine.unread -= part.size;
  };
  /** Whether somebody takes the message that begins with a frame. */
  const wanted = ({ type, id, fromCaller }: Frame): boolean => {
    if (type === Type.Notify || fromCaller) return true;
    const call = engine.pending.get(id);
    if (!call && (type === Type.Result || id > engine.lastID)) engine.offended();
    return !!call;
  };
  /** Fails the call that a message belongs to which is larger than is taken, and not the link. */
  const refuse = ({ type, id, fromCaller }: Frame) => {
    const message = "the message is larger than this side takes";
    const call = engine.pending.get(id);
    if (fromCaller) engine.incoming.whole(id, undefined);
    else if (type === Type.Result) engine.answered(makeFrame(Type.Fail, { id, code: Status.ResourceExhausted, message }));
    else if (call) engine.giveUp(call, (outcome) => new RpcError(Status.ResourceExhausted, message, { outcome }));
  };

  const mine: Fragments = {
    gather,
    remove(turn) {
      large.delete(turn);
      uncut(turn, turn.frame);
    },
    receive(frame) {
      const { type, id, fromCaller, payload, more } = frame;
      const key = keyOf(id, fromCaller);
      let part = open.get(key);
      if (!inUse()) malformed("fragments");
      if (part && type === Type.Result && part.frame.type === Type.Item) {
        close(key, part); // cut off by our CANCEL
        part = undefined;
      }
      if (type !== Type.Chunk) {
        if (part) malformed("fragments");
        if (type === Type.Call ? !engine.called(frame) : !wanted(frame)) return;
        open.set(key, (part = { frame, parts: [], size: 0, over: false }));
      } else if (!part) {
        if (!id) malformed("fragments");
        if (id > (fromCaller ? engine.lastPeerID : engine.lastID)) engine.offended();
        return;
      }
      if (!part.over) {
        part.parts.push(payload);
        part.size += payload.length;
        engine.unread += payload.length;
        if (part.size > engine.limits.message || engine.unread > mostUnread(engine)) {
          close(key, part);
          part.over = true;
          if (part.frame.type !== Type.Notify) return refuse(part.frame) as undefined;
          open.set(key, part); // to be credited in its turn
        }
      }
      if (more) return;
      close(key, part);
      const whole: Frame = { ...part.frame, more: part.over, payload: part.over ? payload : join(part.parts, part.size) };
      if (whole.type !== Type.Call) return whole;
      engine.incoming.whole(id, whole);
    },
    drop(id, fromCaller = false) {
      const key = keyOf(id, fromCaller);
      const part = open.get(key);
      if (part) close(key, part);
      return part?.frame.type;
    },
    clear() {
      for (const [key, part] of open) close(key, part);
      cutting = 0;
      midway = undefined;
    },
  };
  return mine;
};

/** What a peer that keeps to the protocol can have this side hold of items and of parts of messages. */
export const mostUnread = ({ limits: { budget, message, calls } }: Engine): number => 3 * budget + message + calls * smallItem;
