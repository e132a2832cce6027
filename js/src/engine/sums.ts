import type { Engine, Part } from "./engine.js";
import type { Stream } from "./stream.js";

/** What all streams of a connection have together. */
export interface Sums extends Part {
  /** Bytes of items that the peer has not credited. */
  sent: number;
  /** Bytes that windows have grown by. */
  grown: number;
  /** The shortest round trip that was measured, in milliseconds: what waits in buffers makes others longer; 0: none. */
  roundTrip: number;
  /** Those to which CREDIT is due. */
  readonly creditors: Set<Stream>;
  /** Those that wait for a part of the peer's budget. */
  readonly starved: Set<Stream>;
  /** Measures the round trip with the next CREDIT. */
  probe(): void;
  /** There is room in the budget. */
  moved(): void;
}

/** Makes the part of an engine that streams share. */
export function sums(engine: Engine): Sums {
  /** When a PING left, and the position that answers it: it has counted frames behind it. */
  let from = 0;
  let at = 0;
  let wanted = false;

  const all: Sums = {
    sent: 0,
    grown: 0,
    roundTrip: 0,
    creditors: new Set(),
    starved: new Set(),
    probe() {
      wanted ||= !from;
    },
    moved() {
      const starved = [...all.starved];
      all.starved.clear();
      for (const stream of starved) stream.moved();
    },
    take(session) {
      if (!all.creditors.size) return;
      for (const stream of all.creditors) {
        if (!stream.takeCredit(session)) return;
        all.creditors.delete(stream);
      }
      if (!wanted) return;
      wanted = false;
      session.ping();
      from = performance.now();
      at = session.sent;
    },
    lost() {
      all.creditors.clear();
      from = 0;
      wanted = false;
    },
  };
  engine.acknowledged = (position) => {
    if (!from || position < at) return;
    const took = performance.now() - from;
    all.roundTrip = all.roundTrip ? Math.min(all.roundTrip, took) : took;
    from = 0;
  };
  return all;
}
