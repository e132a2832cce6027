// @ts-check
// What the server handles, and trying it.
import { button, make, nothing, span, write } from "./dom.js";
import { Wrong, formable, forms } from "./form.js";
import { run } from "./run.js";
import { target } from "./target.js";

/** @import { App } from "./app.js" */
/** @import { Schema } from "./form.js" */

/**
 * What is used here of a method in an OpenRPC document.
 *
 * @typedef {{
 *   name: string, summary?: string, description?: string, params?: { name: string, schema: Schema }[],
 *   result?: { schema: Schema },
 *   "x-typedrpc"?: { kind?: string, handler?: string, request?: Schema, response?: Schema, up?: Schema, down?: Schema } & Record<string, unknown>,
 * }} Method
 */

/** @type {Record<string, string>} */
const kinds = { method: "method", notification: "notification", serverStream: "server stream", clientStream: "client stream", bidiStream: "bidirectional stream", topic: "topic", upload: "upload", download: "download" };
const traits = ["idempotent", "keyed", "serial", "safe", "restartable", "presence", "timeout", "maxSize", "policy", "history", "historyAge", "maxQueued"];

/** What an address names, whoever wrote it. @param {string} part */
function named(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** @param {Method} m */
export const kindOf = (m) => m["x-typedrpc"]?.kind ?? "method";

/**
 * @param {HTMLElement} root
 * @param {App} app
 */
export function methods(root, app) {
  const filter = make("input", "");
  filter.type = "search";
  filter.placeholder = "Filter";
  filter.ariaLabel = "Filter methods";
  const list = make("nav", "names");
  list.ariaLabel = "Methods";
  const chosen = make("div", "chosen");
  const runs = make("div", "runs");
  runs.role = "log";
  runs.ariaLabel = "What was tried";
  const signed = as();
  const far = target(app, signed.told);
  const side = make("div", "side", filter, list);
  root.append(make("div", "split", side, make("div", "work", signed.node, chosen, runs)));
  /** @type {Map<string, Method>} */
  let all = new Map();
  /** @type {Record<string, Schema>} */
  let schemas = {};
  /** What was written into the forms. @type {Map<string, unknown>} */
  const drafts = new Map();

  const names = () => {
    const text = filter.value.trim().toLowerCase();
    list.replaceChildren();
    /** @type {HTMLElement | undefined} */
    let group;
    let last = "";
    for (const m of all.values()) {
      if (text && !`${m.name} ${m.summary ?? ""}`.toLowerCase().includes(text)) continue;
      const dot = m.name.lastIndexOf(".");
      const prefix = dot > 0 ? m.name.slice(0, dot) : "";
      if (!group || prefix !== last) {
        group = make("ul", "");
        group.ariaLabel = prefix || "others";
        if (prefix) list.append(make("p", "group", prefix));
        list.append(group);
        last = prefix;
      }
      const a = make("a", "", make("span", "", m.name.slice(dot + 1)), make("small", `kind ${kindOf(m)}`, kinds[kindOf(m)] ?? kindOf(m)));
      a.href = `#methods/${encodeURIComponent(m.name)}`;
      if (location.hash === a.hash) a.ariaCurrent = "page";
      group.append(make("li", "", a));
    }
    if (!list.firstChild) list.append(all.size > 0 ? make("p", "hint", "Nothing is called like that.") : nothing("No methods", "The server's Mux has no handlers."));
  };
  filter.oninput = names;

  let known = "";
  /** Asks what there is, and reports whether that has changed. */
  const load = async () => {
    const { openrpc } = await app.api.inspector.describe();
    if (openrpc === known) return false;
    known = openrpc;
    const doc = /** @type {{ methods: Method[], components?: { schemas?: Record<string, Schema> } }} */ (JSON.parse(openrpc));
    all = new Map(doc.methods.map((m) => [m.name, m]));
    schemas = doc.components?.schemas ?? {};
    return true;
  };

  /** Who the calls are made as. */
  function as() {
    const input = make("textarea", "code");
    input.id = "credentials";
    input.rows = 2;
    input.spellcheck = false;
    input.autocomplete = "off";
    input.placeholder = '{"token": "…"}';
    const state = make("span", "state none", "not connected");
    state.role = "status";
    const wrong = make("p", "error", "");
    wrong.hidden = true;
    wrong.role = "alert";
    const label = make("label", "", "Credentials ", make("small", "", "JSON, as the server's sign-in takes them; empty: none"));
    label.htmlFor = input.id;
    const use = button("Use these", "small", () => {
      wrong.hidden = true;
      try {
        far.as(input.value.trim() === "" ? undefined : JSON.parse(input.value));
        details.open = false;
      } catch {
        wrong.textContent = "That is no JSON.";
        wrong.hidden = false;
        input.focus();
      }
    });
    const forget = button("Forget them", "other small", () => {
      input.value = "";
      far.as(undefined);
    });
    const details = make("details", "", make("summary", "", "Calls are made as whom these credentials name"), make("div", "field", label, input), wrong, make("div", "actions", use, forget), make("p", "hint", "They are sent to the inspected server with the handshake, and kept nowhere but in this field."));
    return {
      node: make("section", "card as", make("div", "head", make("h2", "", "Try it"), state), details),
      /** @param {string} text @param {string} what */
      told(text, what) {
        state.className = `state ${what}`;
        write(state, text);
      },
    };
  }

  /** @param {string} name */
  const choose = (name) => {
    const m = all.get(name);
    if (!m) {
      chosen.replaceChildren(all.size === 0 ? "" : name ? nothing("There is no such method", name) : nothing("Choose one", "of what the server handles, and call it with a form or with JSON."));
      return;
    }
    const x = m["x-typedrpc"] ?? {};
    const kind = kindOf(m);
    const facts = make("ul", "traits", make("li", `kind ${kind}`, kinds[kind] ?? kind));
    for (const trait of traits) {
      const value = x[trait];
      if (value === undefined || value === false) continue;
      const text = trait === "timeout" || trait === "historyAge" ? span(Number(value)) : String(value);
      facts.append(make("li", "", value === true ? trait : `${trait} ${text}`));
    }
    /** @type {Node[]} */
    const parts = [make("div", "head", make("h2", "mono", m.name), facts), make("p", "about", m.description ?? m.summary ?? "Nothing is said of it. Server.Schema has what the program's comments say, and its types.")];
    if (x.handler === "client") parts.push(nothing("Clients handle it", "The server calls it: there is nothing to try here."));
    else if (kind === "upload" || kind === "download") parts.push(nothing("A transfer", "Files are not tried here: the client's upload and download do that."));
    else if (!app.welcome().call) parts.push(nothing("You may not try it", "Whoever lets you in did not give you the right to call."));
    else parts.push(trial(m));
    chosen.replaceChildren(make("section", "card", ...parts));
  };

  /** @param {Method} m */
  const trial = (m) => {
    const kind = kindOf(m);
    const x = m["x-typedrpc"] ?? {};
    const first = m.params?.[0];
    const request = kind === "topic" ? /** @type {Schema} */ ({ type: "string" }) : x.request ?? (m.params?.length === 1 && first?.name === "request" ? first.schema : undefined);
    const form = make("form", "trial");
    const body = make("div", "");
    const raw = make("textarea", "code");
    raw.rows = 6;
    raw.spellcheck = false;
    raw.id = "raw";
    const rawLabel = make("label", "", kind === "topic" ? "Key, as JSON" : "Request, as JSON");
    rawLabel.htmlFor = raw.id;
    const wrong = make("p", "error", "");
    wrong.hidden = true;
    wrong.role = "alert";
    const can = formable(request);
    let byForm = can;
    const called = kind === "topic" ? "key" : "";
    let made = can && request ? forms(request, schemas).make(drafts.get(m.name), called) : undefined;
    const read = () => {
      if (byForm && made) return made.value();
      if (raw.value.trim() === "") return kind === "topic" ? "" : null;
      try {
        return JSON.parse(raw.value);
      } catch (error) {
        throw new Wrong(raw, `That is no JSON: ${error instanceof Error ? error.message : ""}`);
      }
    };
    const swap = button("", "link", () => {
      wrong.hidden = true;
      try {
        const value = read();
        byForm = !byForm;
        if (byForm && request) made = forms(request, schemas).make(value, called);
        else raw.value = JSON.stringify(value, null, 2);
        show();
      } catch (error) {
        fail(error);
      }
    });
    const show = () => {
      body.replaceChildren(...(byForm && made ? [made.node] : [make("div", "field", rawLabel, raw)]));
      swap.textContent = byForm ? "Write it as JSON" : "Use the form";
      swap.hidden = !can;
    };
    /** @param {unknown} error */
    const fail = (error) => {
      wrong.textContent = error instanceof Error ? error.message : String(error);
      wrong.hidden = false;
      if (error instanceof Wrong) error.at.focus();
    };
    if (!can) {
      const draft = drafts.get(m.name);
      raw.value = draft === undefined ? (m.params?.length === 0 ? "{}" : "") : JSON.stringify(draft, null, 2);
      raw.placeholder = "null";
    }
    const metadata = make("textarea", "code");
    metadata.id = "metadata";
    metadata.rows = 2;
    metadata.spellcheck = false;
    metadata.placeholder = "trace: 1a2b3c";
    const metadataLabel = make("label", "", "Metadata ", make("small", "", "a line for each: key: value"));
    metadataLabel.htmlFor = metadata.id;
    const timeout = make("input", "");
    timeout.id = "timeout";
    timeout.type = "number";
    timeout.min = "0";
    timeout.placeholder = "the declaration's";
    const timeoutLabel = make("label", "", "Timeout ", make("small", "", "milliseconds"));
    timeoutLabel.htmlFor = timeout.id;
    const go = make("button", "", /** @type {Record<string, string>} */ ({ method: "Call", notification: "Notify", topic: "Subscribe" })[kind] ?? "Open");
    go.type = "submit";
    form.append(body, make("details", "more", make("summary", "", "Metadata and timeout"), make("div", "field", metadataLabel, metadata), make("div", "field", timeoutLabel, timeout)), wrong, make("div", "actions", go, swap));
    form.onsubmit = (event) => {
      event.preventDefault();
      wrong.hidden = true;
      try {
        const value = read();
        drafts.set(m.name, value);
        const pairs = metadata.value.split("\n").filter((text) => text.trim()).map((text) => {
          const at = text.indexOf(":");
          if (at < 1) throw new Wrong(metadata, "Metadata is written as key: value, a line for each");
          return /** @type {[string, string]} */ ([text.slice(0, at).trim(), text.slice(at + 1).trim()]);
        });
        runs.prepend(run(far, m, value, { metadata: Object.fromEntries(pairs), ...(timeout.value ? { timeout: Number(timeout.value) } : {}) }, app));
        while (runs.children.length > 20) runs.lastElementChild?.remove();
      } catch (error) {
        fail(error);
      }
    };
    show();
    return form;
  };

  const empty = make("div", "");
  root.append(empty);
  return {
    /** @param {string} [name] */
    async show(name = "") {
      const wanted = named(name);
      root.classList.toggle("one", wanted !== "");
      names();
      choose(wanted);
      try {
        const changed = await load();
        empty.replaceChildren();
        side.hidden = false;
        if (!changed || named(location.hash) !== (wanted ? `#methods/${wanted}` : "#methods")) return;
        names();
        choose(wanted);
      } catch (error) {
        side.hidden = true;
        empty.replaceChildren(nothing("The methods cannot be shown", error instanceof Error ? error.message : String(error)));
      }
    },
    hide() {},
    close: () => far.close(),
  };
}
