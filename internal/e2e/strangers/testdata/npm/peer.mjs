// What all the programs say their findings with.
import { once } from "node:events";

/** Where the server is, or "serve". */
export const url = process.argv[2];
export const posts = url.replace("ws", "http");

/** Prints what was seen, for the test that started the program. */
export const say = (what, ...values) => console.log(what, ...values.map((v) => JSON.stringify(v)));

/** The error with which a promise has to fail. */
export const failure = (promise) => promise.then((v) => Promise.reject(new Error(`it went well: ${JSON.stringify(v)}`)), (err) => err);

/** A queue of what comes, one by one. */
export function queue() {
  const come = [];
  let wake;
  return {
    push: (v) => { come.push(v); wake?.(); },
    async next() {
      while (come.length === 0) await new Promise((resolve) => { wake = resolve; });
      return come.shift();
    },
  };
}

/** Serves until the test closes the standard input. */
export async function serveUntilTold(port) {
  console.log(port);
  process.stdin.resume();
  await once(process.stdin, "end");
  process.exit(0);
}
