// @ts-check
// What a connection is doing, in the bar at the top of a page:
//
//   <span id="status" class="status" role="status">connecting…</span>
//   <button id="retry" type="button" class="quiet" hidden>Try now</button>

/** @import { Conn } from "./typedrpc.js" */

/**
 * Shows what a connection is doing until the function that it returns is called.
 *
 * @param {Conn} conn
 * @param {{ status: HTMLElement, retry: HTMLElement }} elements
 * @returns {() => void}
 */
export function showState(conn, { status, retry }) {
  const words = document.createElement("span");
  // A screen reader says the words when they change, and not each second that is left.
  const left = document.createElement("span");
  left.ariaHidden = "true";
  status.replaceChildren(words, left);
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let countdown;
  let lost = false;
  const stop = conn.onState(({ state, next }) => {
    clearInterval(countdown);
    left.textContent = "";
    status.dataset["state"] = state;
    retry.hidden = state !== "waiting";
    lost ||= state === "connected";
    switch (state) {
      case "connecting":
        say("connecting…");
        break;
      case "connected":
        say("connected");
        break;
      case "closed":
        say("the connection is closed");
        break;
      case "waiting":
        say(`${lost ? "connection lost" : "no connection"}, trying again`);
        count(next ?? 0);
        countdown = setInterval(count, 1000, next ?? 0);
    }
  });

  /** @param {string} text */
  function say(text) {
    if (words.textContent !== text) words.textContent = text;
  }

  /** @param {number} next */
  function count(next) {
    const seconds = Math.ceil((next - Date.now()) / 1000);
    left.textContent = seconds > 1 ? ` in ${seconds} s` : "…";
  }

  retry.onclick = () => conn.reconnect();
  return () => {
    clearInterval(countdown);
    retry.onclick = null;
    stop();
  };
}
