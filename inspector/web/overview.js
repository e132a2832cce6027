// @ts-check
// The whole server, once a second.
import { rate, tile } from "./chart.js";
import { bytes, count, make, write } from "./dom.js";
import { follow } from "./follow.js";

/** @import { App } from "./app.js" */
/** @import { Overview } from "./api.js" */

/**
 * @param {HTMLElement} root
 * @param {App} app
 */
export function overview(root, app) {
  const tiles = {
    conns: tile("Connections", "That are open, those without a link included"),
    begun: tile("Begun/s", "Connections"),
    calls: tile("Calls under way", "That clients have made"),
    streams: tile("Streams open", "Of the calls under way"),
    received: tile("Received/s"),
    sent: tile("Sent/s"),
    messages: tile("Messages/s", "Of the WebSockets, both ways: one carries what was ready"),
    memory: tile("Held for clients", "Of Server.MaxMemory"),
    kept: tile("Sessions that wait", "Without a link, for their clients to come back"),
    unacked: tile("Not acknowledged", "Bytes that were sent, and may have to be sent again"),
    goroutines: tile("Goroutines", "Of the whole process"),
    heap: tile("Heap", "Objects of the whole process, until they are collected"),
  };
  const rates = { received: rate(), sent: rate(), messages: rate(), begun: rate() };
  const facts = make("dl", "facts");
  /** @type {Map<string, HTMLElement>} */
  const values = new Map();
  for (const name of ["Live links", "Sign-ins under way", "Plain JSON-RPC peers", "HTTP POSTs under way", "Calls to clients", "Waiting for clients", "Buffered", "Not received yet", "Sessions resumed", "Given up: not back in time", "Given up: too many kept", "Ended: memory", "Handlers without a session"]) {
    const dd = make("dd", "", "–");
    values.set(name, dd);
    facts.append(make("div", "", make("dt", "", name), dd));
  }
  root.append(make("dl", "tiles", ...Object.values(tiles).map(({ node }) => node)), facts);
  root.firstElementChild?.classList.add("loading");

  /** @param {Overview} o */
  const show = (o) => {
    root.firstElementChild?.classList.remove("loading");
    const { load: l, at } = o;
    tiles.conns.add(at, o.conns, count(o.conns), `${count(o.links)} with a link`);
    const begun = rates.begun(at, o.accepted);
    tiles.begun.add(at, begun, begun < 10 ? begun.toFixed(begun ? 1 : 0) : count(begun), `${count(o.accepted)} in all`);
    tiles.calls.add(at, l.calls, count(l.calls));
    tiles.streams.add(at, l.streams, count(l.streams));
    const received = rates.received(at, l.received.bytes);
    const sent = rates.sent(at, l.sent.bytes);
    const messages = rates.messages(at, l.received.messages + l.sent.messages);
    tiles.received.add(at, received, bytes(received), `${bytes(l.received.bytes)} in all`);
    tiles.sent.add(at, sent, bytes(sent), `${bytes(l.sent.bytes)} in all`);
    tiles.messages.add(at, messages, count(messages), `${count(l.received.messages + l.sent.messages)} in all`);
    tiles.memory.add(at, l.memory, bytes(l.memory), `of ${bytes(o.maxMemory)}`);
    tiles.kept.add(at, o.kept, count(o.kept), `of ${count(o.maxKept)}, ${bytes(o.keptBytes)}`);
    tiles.unacked.add(at, l.unacked, bytes(l.unacked));
    tiles.goroutines.add(at, o.goroutines, count(o.goroutines));
    tiles.heap.add(at, o.heap, bytes(o.heap));
    /** @type {Record<string, string>} */
    const texts = {
      "Live links": count(o.links), "Sign-ins under way": count(o.opening),
      "Plain JSON-RPC peers": `${count(o.plain)} of ${count(o.maxPlain)}`, "HTTP POSTs under way": count(o.posts),
      "Calls to clients": count(l.out), "Waiting for clients": count(l.waiting), Buffered: bytes(l.buffered), "Not received yet": bytes(l.unread),
      "Sessions resumed": count(l.resumes), "Given up: not back in time": count(o.evictedGrace), "Given up: too many kept": count(o.evictedKept),
      "Ended: memory": count(o.evictedMemory), "Handlers without a session": count(o.detached),
    };
    for (const [name, dd] of values) write(dd, texts[name] ?? "");
  };
  let stop = () => {};
  return {
    show() {
      stop = follow(app, (options) => app.api.inspector.watch(options), show);
    },
    hide() {
      stop();
    },
  };
}
