// @ts-check
// One call, stream or subscription that was tried, and what came of it.
import { RpcError, bidiStream, call, clientStream, keyed, method, notification, notify, open, receive, sendAll, serverStream, subscribe, topic } from "./typedrpc.js";
import { button, bytes, clock, count, make, many, span, write } from "./dom.js";
import { codeName } from "./follow.js";
import { kindOf } from "./methods.js";

/** @import { Conn, Metadata } from "./typedrpc.js" */
/** @import { App } from "./app.js" */
/** @import { Method } from "./methods.js" */

const mostItems = 200;
const mostText = 20_000;

/** @param {unknown} value */
function text(value) {
  if (value instanceof Uint8Array) return `${bytes(value.length)}: ${btoa(String.fromCharCode(...value.subarray(0, 300)))}${value.length > 300 ? "…" : ""}`;
  const made = JSON.stringify(value, null, 2) ?? "nothing";
  return made.length > mostText ? `${made.slice(0, mostText)}… (${bytes(made.length)} in all)` : made;
}

/** @param {Metadata} metadata */
const pairs = (metadata) => Object.entries(metadata).map(([k, v]) => `${k}: ${v}`).join("\n");

/**
 * Tries a method, and shows what comes.
 *
 * @param {{ get: () => Promise<Conn> }} far
 * @param {Method} m
 * @param {unknown} request
 * @param {{ metadata: Metadata, timeout?: number }} options
 * @param {App} app
 */
export function run(far, m, request, options, app) {
  const kind = kindOf(m);
  const stop = new AbortController();
  const state = make("span", "state waiting", "under way");
  const took = make("span", "hint", "");
  const leave = button(kind === "method" || kind === "clientStream" ? "Cancel" : "Leave", "other small", () => stop.abort());
  const items = make("ol", "items");
  items.tabIndex = 0;
  items.ariaLabel = `Items of ${m.name}`;
  items.hidden = true;
  const end = make("div", "");
  const send = make("form", "send");
  send.hidden = true;
  const node = make("article", "card run", make("div", "head", make("h3", "mono", m.name), state, took, leave), make("details", "", make("summary", "", `Request, at ${clock(Date.now())}`), make("pre", "", text(request)), ...(Object.keys(options.metadata).length > 0 ? [make("pre", "", pairs(options.metadata))] : [])), send, items, end);
  node.ariaLabel = m.name;
  const began = performance.now();
  let n = 0;

  /** @param {unknown} value @param {string} [note] */
  const item = (value, note = "") => {
    n++;
    items.hidden = false;
    const down = items.scrollHeight - items.scrollTop - items.clientHeight < 40;
    items.append(make("li", "", make("span", "hint", `${count(n)} · ${span(performance.now() - began)}${note ? ` · ${note}` : ""}`), make("code", "", typeof value === "object" && value && !(value instanceof Uint8Array) ? JSON.stringify(value) : text(value))));
    while (items.children.length > mostItems) items.firstElementChild?.remove();
    if (down) items.scrollTop = items.scrollHeight;
    write(took, many(n, "item"));
  };
  /** @param {Metadata} metadata */
  const onReply = (metadata) => {
    if (Object.keys(metadata).length > 0) end.append(make("p", "hint", "Metadata of the reply"), make("pre", "", pairs(metadata)));
  };
  const how = { ...options, onReply, signal: stop.signal };

  /** Items that are sent, as they are written. */
  const out = () => {
    /** @type {unknown[]} */
    const queue = [];
    let over = false;
    /** @type {(() => void) | undefined} */
    let wake;
    const input = make("input", "code");
    input.ariaLabel = "Item, as JSON";
    input.placeholder = "an item, as JSON";
    input.autocomplete = "off";
    const wrong = make("p", "error", raw(x.up) ? "That is no base64 in quotes." : "That is no JSON.");
    wrong.hidden = true;
    const go = make("button", "small", "Send");
    go.type = "submit";
    const done = button("End", "other small", () => {
      over = true;
      send.hidden = true;
      wake?.();
    });
    send.append(input, go, done, wrong);
    send.hidden = false;
    send.onsubmit = (event) => {
      event.preventDefault();
      wrong.hidden = true;
      try {
        queue.push(packed(JSON.parse(input.value)));
        input.value = "";
        wake?.();
      } catch {
        wrong.hidden = false;
      }
    };
    stop.signal.addEventListener("abort", () => done.click());
    return (async function* () {
      for (;;) {
        while (queue.length > 0) yield queue.shift();
        if (over) return;
        await new Promise((resolve) => (wake = () => resolve(undefined)));
      }
    })();
  };

  const x = m["x-typedrpc"] ?? {};
  /** Bytes that no codec sees are written as base64. @param {unknown} schema */
  const raw = (schema) => /** @type {{ "x-typescript"?: string } | undefined} */ (schema)?.["x-typescript"] === "Uint8Array";
  const traits = { idempotent: x["idempotent"] === true, serial: x["serial"] === true, ...(x["keyed"] === true ? { keyed } : {}), ...(typeof x["timeout"] === "number" ? { timeout: x["timeout"] } : {}) };
  const streamed = { ...traits, bytes: raw(x.down) };
  /** @param {unknown} value */
  const packed = (value) => (raw(x.up) ? Uint8Array.from(atob(String(value)), (c) => c.charCodeAt(0)) : value);

  const work = async () => {
    const conn = await far.get();
    switch (kind) {
      case "notification":
        await notify(conn, notification(m.name), request, how);
        return make("p", "hint", "Sent. Nobody answers a notification.");
      case "serverStream":
        for await (const value of receive(conn, serverStream(m.name, streamed), request, how)) item(value);
        return make("p", "hint", "The stream has ended.");
      case "topic":
        for await (const { value, missed, history } of subscribe(conn, topic(m.name), String(request ?? ""), how)) item(value, [history ? "history" : "", missed ? (missed < 0 ? "some may be missing" : `${count(missed)} missed`) : ""].filter(Boolean).join(", "));
        return make("p", "hint", "The subscription has ended.");
      case "bidiStream": {
        const both = open(conn, bidiStream(m.name, streamed), request, how);
        const up = async () => {
          for await (const value of out()) await both.send(value);
          both.end();
        };
        const sent = up();
        sent.catch(() => {}); // the stream has ended, and says why
        for await (const value of both) item(value);
        return make("p", "hint", "The stream has ended.");
      }
      case "clientStream":
        return make("pre", "", text(await sendAll(conn, clientStream(m.name, traits), request, out(), how)));
      default:
        return make("pre", "answer", text(await call(conn, method(m.name, traits), request, how)));
    }
  };
  work().then(
    (answer) => {
      state.className = "state connected";
      write(state, "done");
      end.prepend(answer);
    },
    (error) => {
      const left = stop.signal.aborted;
      state.className = left ? "state none" : "state ended";
      const e = error instanceof RpcError ? error : undefined;
      write(state, left ? "left" : e ? codeName(e.code) : "failed");
      if (left) return;
      const facts = e ? [codeName(e.code), `outcome ${e.outcome}`, ...(e.fault ? [`fault ${e.fault}`] : []), ...(e.retryAfter ? [`again after ${span(e.retryAfter)}`] : []), ...(e.gap ? ["items may be missing"] : [])] : [];
      end.prepend(make("p", "error", error instanceof Error ? error.message : String(error)), make("p", "hint", facts.join(" · ")), ...(e?.data === undefined ? [] : [make("pre", "", text(e.data))]));
      app.say(`${m.name} failed.`);
    },
  ).finally(() => {
    leave.remove();
    send.remove();
    write(took, `${n ? `${many(n, "item")}, ` : ""}${(performance.now() - began).toFixed(1)} ms`);
  });
  return node;
}
