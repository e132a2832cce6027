// A subscriber with nothing but ws, and a reader of Server-Sent Events with nothing but
// fetch. Each stops reading for a while, is cut off, and goes on behind the last item that
// it had. Prints how many items of how many were lost, and how many came twice.
import { WebSocket } from "ws";
import { posts, say, url } from "./peer.mjs";

const total = Number(process.argv[3]);

function tally() {
  const seen = new Map();
  return {
    add: (text) => { const n = parseInt(text); seen.set(n, (seen.get(n) ?? 0) + 1); return n; },
    all: () => seen.size === total,
    tell: (what) => say(what, seen.size, "lost", total - seen.size, "twice", [...seen.values()].filter((n) => n > 1).length),
  };
}

/** One connection: until it is cut behind some items, or all have come. */
function subscribe(counted, from, cutBehind) {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(url);
    let id, items = 0;
    const send = (id, method, params) => ws.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
    ws.on("error", reject);
    ws.on("open", () => send(1, "rpc.subscribe", { method: "wall", params: "x", from }));
    ws.on("message", (data) => {
      const m = JSON.parse(data);
      if (m.id === 1) { if (m.error) reject(new Error(m.error.message)); id = m.result; return; }
      if (m.id === 2) { say("unsubscribed", m.result); ws.close(); return resolve(undefined); }
      const { subscription, result, at, missed, error } = m.params;
      if (subscription !== id || missed) return reject(new Error(`not mine, or missed: ${data}`));
      if (error) { ws.terminate(); return resolve(from); } // too slow: it goes on behind what it has
      counted.add(result);
      from = at;
      if (counted.all()) return send(2, "rpc.unsubscribe", [id]);
      if (++items === 500) { ws.pause(); setTimeout(() => ws.resume(), 300); } // reads nothing for a while
      if (items >= cutBehind) { ws.removeAllListeners("message"); ws.terminate(); resolve(from); }
    });
  });
}

async function read(counted, last, cutBehind) {
  const cut = new AbortController();
  const response = await fetch(`${posts}?method=wall&params=%22x%22`, { headers: last ? { "Last-Event-ID": last } : {}, signal: cut.signal });
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
  let text = "", items = 0;
  for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
    const events = (text + part).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const fields = Object.fromEntries(event.split("\n").map((line) => [line.split(": ", 1)[0], line.slice(line.indexOf(": ") + 2)]));
      if (fields.event) { if (fields.event === "failed") return last; throw new Error(event); }
      if (fields.data === undefined) continue;
      counted.add(JSON.parse(fields.data));
      last = fields.id;
      if (counted.all() || ++items >= cutBehind) { cut.abort(); return last; }
      if (items === 500) await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }
  return last;
}

for (const [what, one] of [["websocket", subscribe], ["events", read]]) {
  const counted = tally();
  for (let from = "", cutBehind = 700; !counted.all(); cutBehind += 700) from = await one(counted, from, cutBehind);
  counted.tell(what);
}
