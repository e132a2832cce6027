import { type Outcome, RpcError, Status } from "../status.js";
import { Flag, type Frame, Type, makeFrame } from "../wire/frame.js";
import { malformed } from "../wire/text.js";
import type { Session } from "../session/session.js";
import { type Engine, tooLarge } from "./engine.js";
import { mostUnread } from "./fragments.js";
import { type Sums, sums } from "./sums.js";
import { type Turn, Turned, messageOverhead, smallItem } from "./turn.js";

/** What may be added to a message in one turn: a few streams share one, and one alone does not notice. */
const quantum = 16 << 10;
/** What a window may grow to. */
const mostWindow = 1 << 20;

/**
 * The part of a window that may be out and yet counts as nothing: beside it one item of any size may go. It is what a
 * receiver need not credit at once (PROTOCOL.md section 3).
 */
const slack = (window: number): number => window / 16;

/** An item as it came. */
export type Item = Pick<Frame, "payload" | "flags" | "dropped">;

/** One side of a stream: the items that it sends, and those that it receives. */
export interface Stream {
  /** Queues an item, which waits for the peer's window. */
  send(payload: Uint8Array): Promise<void>;
  /** Says that this side sends no more; last is the frame that says so. */
  close(last?: Frame): void;
  /** The next item; undefined: the peer sends no more. */
  next(): Promise<Item | undefined>;
  /** Items may be sent: the CALL has left, the whole of it. */
  begin(id: number): void;
  /** Takes an ITEM, … */
  item(frame: Frame): void;
  /** … a CREDIT, … */
  credit(frame: Frame): void;
  /** … and the end of what the peer sends; error says why, where it was not meant. */
  end(error?: RpcError): void;
  /** Gives up what has not been sent, and what the peer owes: the call has ended. */
  drop(): void;
  /** Nothing goes either way any more, and why. What has come is dropped with it. */
  fail(error: RpcError): void;
  /** Adds the CREDIT that is due; false: there was no room. */
  takeCredit(session: Session): boolean;
  /** Those who wait to send look again. */
  moved(): void;
}

/** Makes a side of a stream. give ends it for a fault of the peer's. */
export function newStream(engine: Engine, isCaller: boolean, give: (why: (outcome: Outcome) => RpcError) => void): Stream {
  const all: Sums = engine.part(sums);
  let id = 0;

  // Sending.
  let pieces: Frame[] = [];
  let closed = false;
  let window = 0;
  let used = 0;
  let sizes: number[] = [];
  let waiting: (() => void)[] = [];
  let failed: RpcError | undefined;

  // Receiving.
  let got: Item[] = [];
  let size = engine.limits.window;
  let out = 0;
  let taken = 0;
  let spent = 0;
  let due = 0;
  let grown = false;
  let over = false;
  let ending: RpcError | undefined;
  let arrived = (): void => undefined;
  /** When the window was last consumed once over, the bytes since then, and the largest item of them. */
  let since = 0;
  let once = 0;
  let largest = 0;

  const line: Turn = {
    get frame() {
      return pieces[0] ?? makeFrame(Type.Item);
    },
    left() {
      const { type, payload } = pieces.shift()!;
      if (type === Type.Item) sizes.push(payload.length + messageOverhead);
    },
    turn(session) {
      for (let added = 0, frame; (frame = pieces[0]); ) {
        const { length } = frame.payload;
        if (added && added + length > quantum) return Turned.More;
        const turned = engine.send(line, frame, session);
        if (turned === Turned.Full && added) return Turned.More; // the others' turn, in the next message
        if (turned !== Turned.Done) return turned;
        added += length + messageOverhead;
      }
      return Turned.Done;
    },
  };
  const push = () => {
    if (id && pieces.length) engine.push(line);
  };
  /** Whether an item may go now. */
  const fits = (cost: number) => {
    if (!id || (used > slack(window) && used + cost > window)) return false;
    const { budget, calls } = engine.peer;
    const affordable = all.sent <= slack(budget) || all.sent + cost <= budget || (!used && cost <= Math.max(budget / calls, smallItem));
    if (!affordable) all.starved.add(stream);
    return affordable;
  };
  /** The call has ended: neither side owes the other anything any more. */
  const forget = () => {
    all.creditors.delete(stream);
    all.sent -= used;
    used = 0;
    sizes = [];
    all.moved();
  };
  const dropReceived = () => {
    for (const { payload } of got) engine.unread -= payload.length + messageOverhead;
    got = [];
    all.grown -= size - engine.limits.window;
    size = engine.limits.window;
  };
  /** An item was handed over. */
  const received = (cost: number) => {
    engine.unread -= cost;
    taken++;
    spent += cost;
    largest = Math.max(largest, cost);
    // CREDIT is due when half of the window has been consumed or nothing more waits: no sequence of sizes can then
    // make both sides wait. The slack could be kept for the next message, but each that comes asks for one.
    // A handler may go on when its caller sends no more: what it has consumed counts in what other streams may have out.
    if ((over && isCaller) || (spent < size / 2 && got.length)) return;
    all.creditors.add(stream);
    due += taken;
    grow(spent);
    out -= spent;
    taken = spent = 0;
    engine.wake();
  };
  /** Widens the window of a sender that the window holds back, and not the receiver or the path. */
  const grow = (bytes: number) => {
    once += bytes;
    if (size >= mostWindow || once <= size - largest) return;
    const now = performance.now();
    const took = since ? now - since : Infinity;
    since = now;
    once = largest = 0;
    all.probe();
    const more = Math.min(size, mostWindow - size);
    if (took >= 1.5 * all.roundTrip || all.grown + more > engine.limits.budget / 2) return;
    size += more;
    all.grown += more;
    grown = true;
  };

  const stream: Stream = {
    async send(payload) {
      const frame = makeFrame(Type.Item, { id, fromCaller: isCaller, payload });
      const cost = payload.length + messageOverhead;
      for (;;) {
        if (failed ?? ending) throw failed ?? ending!;
        if (closed) throw new RpcError(Status.FailedPrecondition, "no item can be sent any more", { outcome: "answered" });
        const refusal = tooLarge(frame, engine.peer.message);
        if (refusal) throw refusal;
        if (fits(cost)) break;
        await new Promise<void>((resolve) => waiting.push(resolve));
      }
      frame.id = id;
      used += cost;
      all.sent += cost;
      pieces.push(frame);
      push();
    },
    close(last = makeFrame(Type.End, { fromCaller: true })) {
      if (last.type === Type.End && (closed || !isCaller)) return;
      closed = true;
      pieces.push(Object.assign(last, { id }));
      push();
      stream.moved();
      if (last.type === Type.End) return;
      forget(); // the handler has returned: what is in the line still leaves
      over = true;
      dropReceived();
    },
    async next() {
      for (;;) {
        if (failed) throw failed;
        const item = got.shift();
        if (item) {
          received(item.payload.length + messageOverhead);
          return item;
        }
        if (ending) throw ending;
        if (over) return;
        await new Promise<void>((resolve) => (arrived = resolve));
      }
    },
    begin(begun) {
      id = begun;
      ({ window } = engine.peer);
      for (const frame of pieces) frame.id = id;
      push();
      stream.moved();
    },
    item({ payload, flags, dropped }) {
      if (over || failed) return;
      const cost = payload.length + messageOverhead;
      const beyond = payload.length > engine.limits.message || (out > slack(size) && out + cost > 2 * size);
      if (beyond || (engine.unread && engine.unread + cost > mostUnread(engine))) {
        return give((outcome) => new RpcError(Status.ResourceExhausted, "the peer sends more than is taken", { outcome }));
      }
      // A view would hold the whole of the message that it came in.
      got.push({ payload: payload.length * 2 < payload.buffer.byteLength ? payload.slice() : payload, flags, dropped });
      out += cost;
      engine.unread += cost;
      arrived();
    },
    credit({ items, window: next }) {
      if (closed && !used) return;
      if (items > sizes.length) malformed("credit");
      for (const bytes of sizes.splice(0, items)) {
        used -= bytes;
        all.sent -= bytes;
      }
      if (next) window = Math.min(next, 16 << 20);
      stream.moved();
      all.moved();
    },
    end(error) {
      if (!over) ending = error;
      over = true;
      arrived();
    },
    drop() {
      engine.remove(line);
      pieces = [];
      closed = true;
      forget();
      stream.moved();
    },
    fail(error) {
      failed ??= error;
      over = true;
      dropReceived();
      stream.drop();
      arrived();
    },
    takeCredit(session) {
      const frame = makeFrame(Type.Credit, { id, fromCaller: isCaller, items: due, window: grown ? size : 0 });
      if (!session.fits(frame)) return false;
      session.add(frame);
      due = 0;
      grown = false;
      return true;
    },
    moved() {
      const woken = waiting;
      waiting = [];
      for (const wake of woken) wake();
    },
  };
  return stream;
}

/** Whether an item is from before its subscription. */
export const isHistory = ({ flags }: Item): boolean => (flags & Flag.History) > 0;
