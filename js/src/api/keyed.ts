import type { Key, Repeat } from "../engine/turn.js";
import { RpcError, Status, withOutcome } from "../status.js";
import { ageName } from "../session/session.js";
import { randomID } from "../wire/text.js";

const keyName = "idempotency-key";
const outcomeName = "idempotency-outcome";

/** Digits of the longest age. */
const ageDigits = 16;

/** Makes an idempotency key, for a program that repeats a keyed call itself: each call is given the same one. */
export const newKey = (): Key => ({ id: randomID(), born: 0, cache: "", uses: 0 });

/**
 * A trait of methods whose handler runs once for each key: `method("shop.buy", { keyed })`. Their calls go on in
 * another session when theirs is lost, for as long as it is the same server that remembers.
 */
export function keyed(key: Key = newKey()): Repeat {
  /** The latest attempt is one of the key's uses. */
  let claimed = false;
  const release = () => {
    if (claimed) key.uses--;
    if (!key.uses) key.born = 0;
    claimed = false;
  };
  return {
    metadata: { [keyName]: key.id, [ageName]: "0".repeat(ageDigits) },
    claim(cache, repeat) {
      release();
      if (key.uses && (!cache || key.cache !== cache)) {
        const code = repeat ? Status.Unavailable : Status.FailedPrecondition;
        return new RpcError(code, "the call may have run at a server that is another one now");
      }
      key.cache = cache;
      key.uses++;
      claimed = true;
      return undefined;
    },
    remembered: () => key.uses > 0 && key.cache !== "",
    lost() {
      claimed = false;
    },
    stamp(metadata) {
      key.born ||= Date.now();
      return { ...metadata, [ageName]: String(Math.max(0, Date.now() - key.born)) };
    },
    failed(error, answer) {
      if (answer?.metadata[outcomeName] === "unknown") return withOutcome(error, "mayHaveRun");
      if (error.outcome === "notSent") release();
      return error;
    },
  };
}
