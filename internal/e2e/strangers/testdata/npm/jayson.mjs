// jayson, as a client, or with "serve" as a server.
import jayson from "jayson/promise/index.js";
import { WebSocket } from "ws";
import { posts, say, serveUntilTold, url } from "./peer.mjs";

if (url === "serve") {
  // Of version 1 it answers {"id":1,"error":null,"result":…}.
  const server = new jayson.Server({
    shout: async ([s]) => s.toUpperCase(),
    subtract: async (p) => (Array.isArray(p) ? p[0] - p[1] : p.minuend - p.subtrahend),
    fail: async ([code]) => { throw { code, message: "refused", data: { why: "because" } }; },
    nothing: async () => null,
  }, { version: Number(process.argv[3]) });
  const wss = server.websocket({ host: "127.0.0.1", port: 0 });
  wss.on("listening", () => serveUntilTold(wss.address().port));
} else {
  const ws = new WebSocket(url);
  await new Promise((resolve) => ws.on("open", resolve));
  const { hostname, port } = new URL(posts);
  for (const client of [jayson.Client.websocket({ ws }), jayson.Client.http({ hostname, port })]) {
    say("by position", (await client.request("subtract", [42, 23])).result);
    say("by name", (await client.request("subtract", { minuend: 42, subtrahend: 23 })).result);
    for (const n of [3, -32602, -32000]) say("refused", (await client.request("fail", [n])).error);
    const batch = [client.request("shout", ["a"], undefined, false), client.request("note", [1], null, false), client.request("nothing", [], undefined, false)];
    say("batch", (await client.request(batch)).map((r) => r.result ?? r.error.code));
    await client.request("note", [2], null); // a notification
    say("noted", (await client.request("noted", [])).result);
  }
  ws.close(1000);
}
