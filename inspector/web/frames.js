// @ts-check
// The frames of a connection, as they pass.
import { button, bytes, clock, count, make, many, write } from "./dom.js";
import { follow } from "./follow.js";

/** @import { App } from "./app.js" */
/** @import { Frame, Frames } from "./api.js" */

const most = 400;

/**
 * @param {App} app
 * @param {number} id
 */
export function frames(app, id) {
  const list = make("ol", "frames");
  list.tabIndex = 0;
  list.ariaLabel = "Frames, the newest last";
  const sums = make("span", "hint");
  const filter = make("input", "");
  filter.type = "search";
  filter.placeholder = "Type, method or call";
  filter.ariaLabel = "Filter frames";
  let paused = false;
  let seen = 0;
  let missed = 0;
  const pause = button("Pause", "other small", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    pause.ariaPressed = String(paused);
    if (paused) stop();
    else stop = begin();
  });
  pause.ariaPressed = "false";
  const clear = button("Clear", "other small", () => {
    list.replaceChildren();
    seen = missed = 0;
    write(sums, "waiting for frames…");
  });
  const masked = make("p", "hint", app.welcome().payloads ? "With their payloads. Credentials and tokens of handshakes are never shown." : "Payloads and the values of metadata are masked: Handler.Payloads shows them.");
  const node = make("section", "card tapped", make("div", "tools", make("h3", "", "Frames"), sums, filter, pause, clear), list, masked);
  node.ariaLabel = "Frames";

  const hides = (/** @type {HTMLElement} */ li) => {
    const text = filter.value.trim().toLowerCase();
    li.hidden = text !== "" && !(li.dataset["text"] ?? "").includes(text);
  };
  filter.oninput = () => {
    for (const li of list.children) if (li instanceof HTMLElement) hides(li);
  };

  /** What the calls that were seen are calls of. @type {Map<string, string>} */
  const calls = new Map();

  /** @param {Frame} f */
  const row = (f) => {
    const call = f.id ? `${f.theirs ? "" : "our "}call ${f.id}` : "";
    if (f.type === "CALL") calls.set(call, f.method);
    for (const first of calls.keys()) {
      if (calls.size <= 2000) break;
      calls.delete(first);
    }
    const method = f.method || (f.id ? calls.get(call) : "");
    const what = make("span", "what", make("b", "", f.type), ...(method ? [" ", make("span", f.method ? "method" : "method soft", method)] : []));
    const li = make("li", f.bad ? "bad" : "", make("time", "", clock(f.at / 1000)), make("span", f.sent ? "way sent" : "way", f.sent ? "sent" : "received"), what, make("span", "call", call), make("span", "size", f.size ? bytes(f.size) : ""), make("span", "note", f.note));
    const pairs = Object.entries(f.metadata ?? {});
    if (pairs.length > 0) li.append(make("span", "meta", pairs.map(([k, v]) => (app.welcome().payloads ? `${k}: ${v}` : k)).join(" · ")));
    if (f.payload) li.append(make("code", "", (f.base64 ? "base64 " : "") + f.payload + (f.cut ? "…" : "")));
    li.dataset["text"] = `${f.type} ${method} ${call} ${f.note}`.toLowerCase();
    hides(li);
    return li;
  };

  /** @param {Frames} some */
  const show = ({ frames: all, missed: n }) => {
    const down = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    if (n > 0) {
      missed += n;
      list.append(make("li", "missed", `${many(n, "frame")} passed unseen: there were more than the page is sent`));
    }
    seen += all.length;
    list.append(...(all ?? []).map(row));
    while (list.children.length > most) list.firstElementChild?.remove();
    write(sums, seen + missed ? `${count(seen)} seen${missed ? `, ${count(missed)} not` : ""}` : "waiting for frames…");
    if (down) list.scrollTop = list.scrollHeight;
  };
  const begin = () => follow(app, (options) => app.api.inspector.tap({ id }, options), show, (error) => write(sums, error.message));
  let stop = begin();
  return { node, stop: () => stop() };
}
