// How long a client waits before it tries again, with a clock that stands and chance that is given.
import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import type { Backoff, SocketConstructor } from "../src/index.js";
import { closeAll, dial, until } from "./server.js";

afterEach(closeAll);

/** There is no server. */
const Absent = function () {
  throw new Error("nobody is there");
} as unknown as SocketConstructor;

const hour = 3_600_000;
const cases: Record<string, [backoff: Backoff, least: number[], most: number[]]> = {
  "the default": [{}, [0, 0, 0], [100, 200, 400]],
  "a least wait": [{ min: 1_000, least: 250 }, [250, 250, 250], [1_000, 2_000, 4_000]],
  "a least wait alone": [{ least: 400 }, [400, 400, 400], [400, 800, 1_600]],
  "a least wait above all that is usual": [{ least: hour }, [hour, hour], [hour, hour]],
  "a largest bound": [{ least: 100, max: 300, min: 200 }, [100, 100], [200, 300]],
  "none at all": [{ off: true }, [10, 10, 10], [10, 10, 10]],
  "none, and a wait": [{ off: true, least: 500 }, [500, 500, 500], [500, 500, 500]],
};

describe("backoff", () => {
  for (const [name, [backoff, least, most]] of Object.entries(cases)) {
    for (const [chance, want] of [
      [0, least],
      [1, most],
    ] as const) {
      test(`${name}, by a chance of ${chance}`, async (t) => {
        t.mock.method(Date, "now", () => 0);
        t.mock.method(Math, "random", () => chance);
        const conn = dial("ws://127.0.0.1/", { WebSocket: Absent, backoff });
        const waits: (number | undefined)[] = [];
        conn.onState(({ state, failed, next }) => {
          if (state === "waiting") waits[failed - 1] ??= next;
        });
        await until(() => {
          conn.reconnect();
          return waits.length >= want.length;
        });
        assert.deepEqual(waits.slice(0, want.length), want);
      });
    }
  }
});
