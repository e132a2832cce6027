import { createJSONRPCErrorResponse, JSONRPCClient, JSONRPCErrorException, JSONRPCServer, JSONRPCServerAndClient } from "json-rpc-2.0";
import { WebSocket } from "ws";
import { failure, queue, say, url } from "./peer.mjs";

const ws = new WebSocket(url, "jsonrpc");
await new Promise((resolve) => ws.on("open", resolve));
const both = new JSONRPCServerAndClient(
  new JSONRPCServer({ errorListener: () => {} }),
  new JSONRPCClient((request) => ws.send(JSON.stringify(request))),
);
ws.on("message", (data) => both.receiveAndSend(JSON.parse(data)));
const closed = new Promise((resolve) => ws.on("close", (code, reason) => resolve([code, String(reason)])));
const pushed = queue();
both.addMethod("reverse", ([s]) => [...s].reverse().join(""));
both.addMethod("broken", () => { throw new JSONRPCErrorException("execution reverted", 3, { why: "no" }); });
both.addMethod("pushed", ([i]) => pushed.push(i));

say("by name", await both.request("subtract", { minuend: 42, subtrahend: 23 }));
say("by position", await both.request("subtract", [42, 23]));
for (const n of [3, -32602, -32000]) {
  const err = await failure(both.request("fail", [n]));
  say("refused", err.code, err.message, err.data);
}
for (let i = 0; i < 100; i++) both.notify("note", [i]);
say("noted", await both.request("noted"));
say("asked", await both.request("ask", ["reverse", "abc"]));
say("asked", await both.request("ask", ["broken", "abc"]));
say("asked", await both.request("ask", ["nothing", "abc"]));
say("batch", (await both.client.requestAdvanced([
  { jsonrpc: "2.0", id: "a", method: "shout", params: ["a"] },
  { jsonrpc: "2.0", id: "b", method: "fail", params: [3] },
  { jsonrpc: "2.0", method: "note", params: [100] },
])).map((r) => [r.id, r.result ?? r.error.code]));
say("noted", await both.request("noted"));
both.request("leave", [100]);
for (let i = 0; i < 100; i++) if (await pushed.next() !== i) throw new Error("out of order");
say("left", await closed);
