// @ts-check
// The page's second connection: to the inspected server, as whom its user says.
import { connect, signIn } from "./typedrpc.js";

/** @import { Conn } from "./typedrpc.js" */
/** @import { App } from "./app.js" */

/**
 * @param {App} app
 * @param {(text: string, state: string) => void} told of what the connection does
 */
export function target(app, told) {
  /** @type {Conn | undefined} */
  let conn;
  /** @type {unknown} undefined: nobody says who they are */
  let credentials;
  const path = new URL("target", location.href).pathname;
  /** A browser gives a WebSocket no header but cookies. This one counts as long as the page's own connection. */
  const admit = async () => {
    const { value } = await app.api.inspector.admit();
    document.cookie = `typedrpc-inspector=${value}; path=${path}; SameSite=Strict; max-age=86400${location.protocol === "https:" ? "; Secure" : ""}`;
  };
  const drop = () => {
    const old = conn;
    conn = undefined;
    if (old) document.cookie = `typedrpc-inspector=; path=${path}; SameSite=Strict; max-age=0`;
    void old?.close();
  };
  return {
    /** The connection, which is made when it is first wanted. */
    async get() {
      if (conn && conn.state.state !== "closed") return conn;
      await admit();
      const made = connect("target", credentials === undefined ? {} : { signIn: signIn(() => credentials) });
      conn = made;
      made.onState(({ state, error }) => {
        if (conn !== made) return;
        if (state === "waiting") admit().catch(() => {}); // the next attempt needs one that counts
        told(state === "closed" || state === "waiting" ? `${state}${error ? `: ${error.message}` : ""}` : state, state);
      });
      return made;
    },
    /** @param {unknown} as undefined: nobody */
    as(as) {
      credentials = as;
      drop();
      told("not connected", "none");
    },
    close: drop,
  };
}
