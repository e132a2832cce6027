import { Status, because, refuse } from "../status.js";
import type { Frame } from "../wire/frame.js";
import { malformed } from "../wire/text.js";
import { canceled, costOf } from "./call.js";
import { type Engine, type Part, noLink, tooLarge } from "./engine.js";
import type { Turn } from "./turn.js";

/** A notification that was queued. */
interface Notice extends Turn {
  readonly cost: number;
}

/** How a notification is sent. */
export interface NoticeOptions {
  signal?: AbortSignal | undefined;
  failFast: boolean;
  /** It must not wait: a handler of the ordered lane sends it. */
  ordered: boolean;
}

/** Our notifications, and the peer's window for them. */
export interface Notices extends Part {
  /** Queues a notification, which waits for the window. */
  send(frame: Frame, options: NoticeOptions): Promise<void>;
}

/** Makes the part of an engine that sends notifications. */
export function notices(engine: Engine): Notices {
  let { window } = engine.peer;
  /** Bytes that were queued or sent and are not credited. */
  let used = 0;
  /** Of what was sent, oldest first. */
  let sizes: number[] = [];
  /** Those that wait for room, in their order. */
  const waiting = new Set<() => void>();
  const moved = () => {
    for (const again of [...waiting]) again();
  };

  engine.credited = ({ items, window: next }) => {
    if (items > sizes.length) malformed("credit");
    for (const size of sizes.splice(0, items)) used -= size;
    if (next) window = Math.min(next, 16 << 20);
    moved();
  };

  return {
    send: (frame, { signal, failFast, ordered }) =>
      new Promise((resolve, reject) => {
        const cost = costOf(frame);
        const stop = () => {
          waiting.delete(attempt);
          signal?.removeEventListener("abort", aborted);
        };
        const aborted = () => {
          stop();
          reject(because(canceled("notSent", signal?.reason), noLink(engine)));
        };
        const attempt = () => {
          const fits = !used || used + cost <= window;
          // Others that came before are first, and a handler that waits may wait for itself.
          const first = !waiting.size || waiting.values().next().value === attempt;
          let refusal = engine.closed ?? tooLarge(frame, engine.peer.message);
          if (failFast) refusal ??= noLink(engine);
          if (ordered && !(fits && first)) refusal ??= refuse(Status.FailedPrecondition, "an ordered handler must not wait for the window");
          if (!refusal && !(fits && first)) return void waiting.add(attempt);
          stop();
          if (refusal) return reject(refusal);
          const turn: Notice = { frame, cost, ordered: true, left: () => void sizes.push(cost) };
          used += cost;
          engine.push(turn);
          resolve();
        };
        if (signal?.aborted) return aborted();
        signal?.addEventListener("abort", aborted);
        attempt();
      }),
    opened() {
      ({ window } = engine.peer);
      moved();
    },
    lost(again, turns) {
      sizes = [];
      used = 0;
      for (const turn of turns as Notice[]) {
        if (!again || !turn.left || !("cost" in turn) || "done" in turn || turn.sent) continue;
        used += turn.cost;
        engine.queue.add(turn);
      }
      moved();
    },
    closed: moved,
    busy: () => used > 0,
  };
}
