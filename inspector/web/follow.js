// @ts-check
// Streams that go on whatever becomes of the link.
import { Code, RpcError } from "./typedrpc.js";

/** @import { App } from "./app.js" */

/**
 * Follows a stream until the function that it returns is called. When its session is lost it is
 * opened again.
 *
 * @template Item
 * @param {App} app
 * @param {(options: { signal: AbortSignal }) => AsyncIterable<Item>} open
 * @param {(item: Item) => void} each
 * @param {(error: RpcError) => void} [failed] is told why it has ended; without it the page says so
 * @returns {() => void}
 */
export function follow(app, open, each, failed) {
  const stop = new AbortController();
  const { signal } = stop;
  const run = async () => {
    while (!signal.aborted) {
      try {
        for await (const item of open({ signal })) {
          if (signal.aborted) return;
          each(item);
        }
        return;
      } catch (error) {
        if (signal.aborted || app.conn.state.state === "closed") return; // the page says that
        const told = error instanceof RpcError ? error : new RpcError(Code.Internal, String(error));
        if (!told.gap && told.code !== Code.Unavailable) {
          (failed ?? ((e) => app.fail(e)))(told);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, 300 + Math.random() * 400));
      }
    }
  };
  void run();
  return () => stop.abort();
}

/**
 * The name of an error's code.
 *
 * @param {number} code
 */
export const codeName = (code) => Object.entries(Code).find(([, n]) => n === code)?.[0] ?? `code ${code}`;
