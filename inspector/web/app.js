// @ts-check
// The page: its connection, who looks, and which view is shown.
import { Code, connect } from "./typedrpc.js";
import * as api from "./api.js";
import { connections } from "./connections.js";
import { element, write } from "./dom.js";
import { methods } from "./methods.js";
import { overview } from "./overview.js";
import { topics } from "./topics.js";

/** @import { Conn } from "./typedrpc.js" */
/** @import { Client, Welcome } from "./api.js" */

/**
 * What views need of the page.
 *
 * @typedef {{
 *   conn: Conn, api: Client, welcome: () => Welcome, say: (text: string) => void, fail: (error: Error) => void,
 *   end: (what: { id: number, subject: string }, text: string) => Promise<void>,
 * }} App
 */

/** @typedef {{ show: (rest?: string) => unknown, hide: () => void, close?: () => void }} View */

const names = /** @type {const} */ (["overview", "methods", "connections", "topics"]);

/** Says something to those who do not see it. @param {string} text */
const say = (text) => write(element("said"), text);

/** Shows one of the sections. @param {string} id */
function only(id) {
  for (const name of [...names.map((n) => `view-${n}`), "sign-in", "closed"]) element(name).hidden = name !== id;
}

/** @param {string} secret */
function begin(secret) {
  let asked = secret;
  const signIn = api.signIn(() => ({ secret: asked }));
  const conn = connect("rpc", { signIn, backoff: { max: 5000 } });
  /** @type {Map<string, View>} */
  const views = new Map();
  /** @type {View | undefined} */
  let shown;
  let in_ = false;

  /** @type {App} */
  const app = {
    conn,
    api: api.newClient(conn),
    welcome: () => signIn.reply ?? { name: "", call: false, end: false, topics: false, payloads: false },
    say,
    fail(error) {
      write(element("closed-why"), error.message);
      only("closed");
    },
    end: (what, text) => ending(app, what, text),
  };

  const route = () => {
    const [name = "", ...rest] = location.hash.slice(1).split("/");
    const known = names.find((n) => n === name) ?? "overview";
    const make = { overview, methods, connections, topics }[known];
    const view = views.get(known) ?? make(element(`view-${known}`), app);
    views.set(known, view);
    shown?.hide();
    if (shown !== view) scrollTo(0, 0);
    shown = view;
    only(`view-${known}`);
    for (const a of document.querySelectorAll("header nav a")) a.ariaCurrent = a.getAttribute("href") === `#${known}` ? "page" : null;
    document.title = `${known[0]?.toUpperCase()}${known.slice(1)} · Inspector`;
    if (!document.hidden) void view.show(rest.join("/"));
  };
  const visible = () => {
    if (document.hidden) shown?.hide();
    else if (in_) route();
  };
  const status = element("status");
  const stopped = conn.onState(({ state, error, resumed }) => {
    status.dataset["state"] = state;
    write(status, { connecting: "connecting…", connected: "connected", waiting: "connection lost, trying again", closed: "closed" }[state]);
    element("retry").hidden = state !== "waiting";
    element("offline").hidden = state !== "waiting" || !in_;
    if (state === "connected" && !(in_ && resumed)) {
      const { name } = app.welcome();
      write(element("who"), name ? `as ${name}` : "");
      if (!in_) {
        in_ = true;
        addEventListener("hashchange", route);
        document.addEventListener("visibilitychange", visible);
        route();
      }
    }
    if (state !== "closed") return;
    removeEventListener("hashchange", route);
    document.removeEventListener("visibilitychange", visible);
    shown?.hide();
    for (const [id, view] of views) {
      view.close?.();
      element(`view-${id}`).replaceChildren();
    }
    stopped();
    if (error?.code === Code.Unauthenticated) ask(asked ? error.message : "");
    else {
      write(element("closed-why"), error?.message ?? "The page has closed it.");
      only("closed");
    }
    asked = "";
  });
  element("retry").onclick = () => conn.reconnect();
}

/** Asks for the secret. @param {string} why the last one was not taken */
function ask(why) {
  only("sign-in");
  const input = element("secret", HTMLInputElement);
  const error = element("sign-in-error");
  error.hidden = !why;
  write(error, why);
  input.value = "";
  input.focus();
  element("sign-in-form").onsubmit = (event) => {
    event.preventDefault();
    const secret = input.value;
    input.value = "";
    begin(secret);
  };
}

/**
 * Asks whether connections are to be ended, and ends them.
 *
 * @param {App} app
 * @param {{ id: number, subject: string }} what
 * @param {string} text
 * @returns {Promise<void>}
 */
function ending(app, what, text) {
  const dialog = element("ending", HTMLDialogElement);
  const away = element("ending-away", HTMLInputElement);
  const reason = element("ending-reason", HTMLInputElement);
  const error = element("ending-error");
  const yes = element("ending-yes", HTMLButtonElement);
  write(element("ending-what"), text);
  away.checked = false;
  reason.value = "";
  error.hidden = true;
  yes.disabled = false;
  element("ending-no").onclick = () => dialog.close();
  element("ending-form").onsubmit = async (event) => {
    event.preventDefault();
    error.hidden = true;
    yes.disabled = true;
    try {
      const { conns } = await app.api.inspector.end({ ...what, stayAway: away.checked, reason: reason.value });
      say(`${conns === 1 ? "One connection was" : `${conns} connections were`} ended.`);
      dialog.close();
    } catch (e) {
      write(error, e instanceof Error ? e.message : String(e));
      error.hidden = false;
    }
    yes.disabled = false;
  };
  dialog.showModal();
  return Promise.resolve();
}

element("again").onclick = () => begin("");
begin("");
