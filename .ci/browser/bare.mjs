// A browser driven by nothing but its protocol. Playwright has every page believe that it is
// visible and has the focus, so it can show neither a hidden tab nor a frozen one.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { args, executablePath, kept } from "./harness.mjs";

export async function bareBrowser() {
  const profile = await mkdtemp(join(tmpdir(), "typedrpc-profile-"));
  const flags = [...args, "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"];
  const child = kept(spawn(executablePath, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] }));
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const [, , , to, from] = child.stdio;
  const waiting = new Map();
  let ids = 0;
  let rest = "";
  from.setEncoding("utf8").on("data", (text) => {
    const messages = (rest + text).split("\0");
    rest = messages.pop();
    for (const message of messages) {
      const { id, result, error } = JSON.parse(message);
      waiting.get(id)?.(error ? Promise.reject(new Error(error.message)) : result);
      waiting.delete(id);
    }
  });
  const send = (method, params = {}, sessionId = undefined) =>
    new Promise((resolve) => {
      waiting.set(++ids, resolve);
      to.write(JSON.stringify({ id: ids, method, params, sessionId }) + "\0");
    });
  return {
    async newTab(url) {
      const { targetId } = await send("Target.createTarget", { url });
      const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
      const tab = {
        send: (method, params) => send(method, params, sessionId),
        show: () => send("Target.activateTarget", { targetId }),
        close: () => send("Target.closeTarget", { targetId }),
        // evaluate returns what an expression is, in the page.
        async evaluate(expression) {
          const { result, exceptionDetails } = await tab.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
          if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
          return result.value;
        },
        // until waits until an expression is true, in the page.
        async until(expression) {
          for (const deadline = Date.now() + 120_000; !(await tab.evaluate(expression).catch(() => false)); ) {
            if (Date.now() > deadline) throw new Error(`it is never true: ${expression}`);
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
        },
      };
      return tab;
    },
    async close() {
      await Promise.race([send("Browser.close"), ended]);
      await ended;
      await rm(profile, { recursive: true, force: true });
    },
  };
}
