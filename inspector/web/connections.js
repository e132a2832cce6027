// @ts-check
// Connections: some of them in a table, or one with its numbers and its frames.
import { rate, tile } from "./chart.js";
import { button, bytes, count, make, many, nothing, span, table, write } from "./dom.js";
import { follow } from "./follow.js";
import { frames } from "./frames.js";

/** @import { App } from "./app.js" */
/** @import { Conn, One, Order, Page } from "./api.js" */

const size = 50;

/** @param {Conn} c */
const whose = (c) => c.subject || "nobody";

/** @param {Conn} c */
const stateOf = (c) => (c.away ? "waiting" : "connected");

/**
 * @param {HTMLElement} root
 * @param {App} app
 */
export function connections(root, app) {
  const text = make("input", "");
  text.type = "search";
  text.placeholder = "Subject or address";
  text.ariaLabel = "Filter by subject or address";
  const order = make("select", "");
  order.ariaLabel = "Order";
  for (const [value, name] of /** @type {[Order, string][]} */ ([["newest", "Newest first"], ["oldest", "Oldest first"], ["memory", "Most memory"], ["calls", "Most calls"], ["traffic", "Most traffic"], ["unacked", "Most not acknowledged"]])) {
    order.append(new Option(name, value));
  }
  const waiting = make("input", "");
  waiting.type = "checkbox";
  const sums = make("p", "hint");
  const before = button("Before", "other small", () => move(-size));
  const after = button("After", "other small", () => move(size));
  let skip = 0;
  let at = 0;

  const rows = table(
    "Connections",
    [["Id", "n"], ["Subject"], ["Address"], ["Speaks"], ["State"], ["Age", "n"], ["Round trip", "n"], ["Calls", "n", "Calls and streams under way, of the client"], ["Received", "n"], ["Sent", "n"], ["Memory", "n"]],
    (/** @type {Conn} */ c) => String(c.id),
    (c, cells, made, tr) => {
      if (made) {
        const link = make("a", "", String(c.id));
        link.href = `#connections/${c.id}`;
        link.ariaLabel = `Connection ${c.id}`;
        cells[0]?.append(link);
        tr.onclick = () => (location.hash = `#connections/${c.id}`);
      }
      const texts = [undefined, whose(c), c.address || "–", `${c.dialect} · ${c.codec}`, undefined, span(at - c.since), c.roundTrip ? span(c.roundTrip / 1000) : "–", count(c.load.calls), bytes(c.load.received.bytes), bytes(c.load.sent.bytes), bytes(c.load.memory)];
      texts.forEach((text, i) => {
        const cell = cells[i];
        if (cell && text !== undefined) write(cell, text);
      });
      cells[1]?.classList.toggle("soft", !c.subject);
      const state = cells[4];
      if (state) {
        state.className = `state ${stateOf(c)}`;
        write(state, c.away ? `waits for ${span(at - c.away)}` : "connected");
      }
    },
  );
  const scroll = make("div", "scroll", rows.node);
  scroll.tabIndex = 0;
  scroll.role = "region";
  scroll.ariaLabel = "Table of connections";
  const empty = make("div", "");
  const label = make("label", "check", waiting, make("span", "", "Waiting for their clients alone"));
  const listed = make("div", "", make("div", "tools", text, order, label, sums), empty, scroll, make("div", "pager", before, after));
  const one = make("div", "");
  root.append(listed, one);

  /** @param {Page} page */
  const show = (page) => {
    at = page.at;
    const last = skip + page.rows.length;
    write(sums, page.found ? `${count(skip + 1)} to ${count(last)} of ${count(page.found)}${page.found < page.all ? `, of ${count(page.all)} in all` : ""}` : `none of ${count(page.all)}`);
    before.disabled = skip === 0;
    after.disabled = last >= page.found;
    scroll.hidden = page.rows.length === 0;
    const paged = skip > 0 || last < page.found;
    before.hidden = after.hidden = !paged;
    if (page.rows.length > 0) empty.replaceChildren();
    else if (page.all === 0) empty.replaceChildren(nothing("Nobody is connected", "Connections appear here as soon as clients come."));
    else if (waiting.checked && !text.value) empty.replaceChildren(nothing("Nobody waits", "Every session has its link."));
    else empty.replaceChildren(nothing("Nobody like that", "No subject and no address contains this text."));
    rows.show(page.rows);
    if (page.rows.length === 0 && skip > 0) move(-size);
  };
  let stop = () => {};
  const list = () => {
    stop();
    const query = { text: text.value.trim(), waiting: waiting.checked, order: /** @type {Order} */ (order.value), skip, most: size };
    stop = follow(app, (options) => app.api.inspector.list(query, options), show, (error) => empty.replaceChildren(nothing("That did not work", error.message)));
  };
  /** @param {number} by */
  const move = (by) => {
    skip = Math.max(skip + by, 0);
    list();
  };
  const anew = () => {
    skip = 0;
    list();
  };
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let later;
  text.oninput = () => {
    clearTimeout(later);
    later = setTimeout(anew, 200);
  };
  order.onchange = anew;
  waiting.onchange = anew;

  return {
    /** @param {string} [id] */
    show(id) {
      const number = Number(id);
      listed.hidden = Boolean(number);
      one.hidden = !number;
      if (!number) {
        list();
        return;
      }
      stop = detail(one, app, number);
    },
    hide() {
      stop();
      stop = () => {};
    },
  };
}

/**
 * Shows one connection until the function that it returns is called.
 *
 * @param {HTMLElement} root
 * @param {App} app
 * @param {number} id
 */
function detail(root, app, id) {
  const title = make("h2", "", `Connection ${id}`);
  const state = make("span", "state", "…");
  const facts = make("dl", "facts");
  /** @type {Map<string, HTMLElement>} */
  const values = new Map();
  for (const name of ["Subject", "Address", "Speaks", "Connected for", "Round trip", "Credentials end", "Resumed", "Calls to it", "Waiting", "Not received yet", "Last link ended with"]) {
    const dd = make("dd", "", "–");
    values.set(name, dd);
    facts.append(make("div", "", make("dt", "", name), dd));
  }
  const tiles = { calls: tile("Calls and streams", "That the client has made, and that are under way"), received: tile("Received/s"), sent: tile("Sent/s"), unacked: tile("Not acknowledged"), memory: tile("Held", "Of Server.MaxMemory") };
  const rates = { received: rate(), sent: rate() };
  const back = make("a", "back", "All connections");
  back.href = "#connections";
  /** @type {Conn | undefined} */
  let now;
  const buttons = make("div", "actions");
  if (app.welcome().end) {
    const single = button("End it…", "other small", () => void app.end({ id, subject: "" }, now ? `Connection ${id} of ${whose(now)}` : `Connection ${id}`));
    const all = button("End all of the subject…", "other small", () => now && void app.end({ id: 0, subject: now.subject }, `All connections of ${now.subject}, and what it asks for over HTTP`));
    all.hidden = true;
    buttons.append(single, all);
    values.set("all", all);
  }
  const ended = make("div", "");
  const taps = frames(app, id);
  root.replaceChildren(back, make("div", "head", title, state, buttons), ended, make("dl", "tiles few", ...Object.values(tiles).map(({ node }) => node)), facts, taps.node);

  /** @param {One} o */
  const show = ({ at, conn: c, ended: why }) => {
    now = c;
    const { load: l } = c;
    state.className = `state ${why ? "ended" : stateOf(c)}`;
    write(state, why ? "ended" : c.away ? `waits for its client for ${span(at - c.away)}` : "connected");
    if (why) {
      ended.replaceChildren(nothing("It has ended", why));
      buttons.remove();
      app.say(`Connection ${id} has ended.`);
    }
    tiles.calls.add(at, l.calls, count(l.calls), l.streams ? many(l.streams, "stream") : "");
    const received = rates.received(at, l.received.bytes);
    const sent = rates.sent(at, l.sent.bytes);
    tiles.received.add(at, received, bytes(received), `${bytes(l.received.bytes)} in ${many(l.received.messages, "message")}`);
    tiles.sent.add(at, sent, bytes(sent), `${bytes(l.sent.bytes)} in ${many(l.sent.messages, "message")}`);
    tiles.unacked.add(at, l.unacked, bytes(l.unacked));
    tiles.memory.add(at, l.memory, bytes(l.memory));
    /** @type {Record<string, string>} */
    const texts = {
      Subject: whose(c), Address: c.address || "–", Speaks: `${c.dialect} · ${c.codec}`, "Connected for": span(at - c.since), "Round trip": c.roundTrip ? span(c.roundTrip / 1000) : "–",
      "Credentials end": c.expires ? (c.expires > at ? `in ${span(c.expires - at)}` : "now") : "never", Resumed: many(l.resumes, "time"), "Calls to it": count(l.out), Waiting: count(l.waiting),
      "Not received yet": bytes(l.unread), "Last link ended with": c.lost || "–",
    };
    for (const [name, text] of Object.entries(texts)) write(/** @type {HTMLElement} */ (values.get(name)), text);
    const all = values.get("all");
    if (all) all.hidden = !c.subject;
  };
  const stop = follow(app, (options) => app.api.inspector.look({ id }, options), show, (error) => {
    taps.stop();
    root.replaceChildren(back.cloneNode(true), nothing("It is not there", error.message));
  });
  return () => {
    stop();
    taps.stop();
  };
}
