// vscode-jsonrpc, the library of editors' language servers, over vscode-ws-jsonrpc.
import { CancellationTokenSource, NotificationType, ParameterStructures, ProgressType, RequestType, ResponseError } from "vscode-jsonrpc";
import { listen } from "vscode-ws-jsonrpc";
import { WebSocket } from "ws";
import { failure, queue, say, url } from "./peer.mjs";

const webSocket = new WebSocket(url);
const conn = await new Promise((onConnection) => listen({ webSocket, onConnection }));
const begun = queue(), cancelled = queue(), progress = queue(), closed = queue();
conn.onRequest("reverse", (s) => [...s].reverse().join(""));
conn.onRequest("broken", () => new ResponseError(3, "execution reverted", { why: "no" }));
conn.onRequest("slow", (token) => new Promise((resolve) => {
  token.onCancellationRequested(() => { cancelled.push("cancelled"); resolve(new ResponseError(-32800, "cancelled")); });
  conn.sendNotification("begun", 1);
}));
conn.onNotification("begun", begun.push);
conn.onProgress(new ProgressType(), "work", progress.push);
conn.onClose(() => closed.push("closed"));
conn.onError(([e]) => say("error", e.message));
conn.listen();

say("by name", await conn.sendRequest("subtract", { minuend: 42, subtrahend: 23 }));
say("by position", await conn.sendRequest("subtract", 42, 23));
say("one", await conn.sendRequest(new RequestType("shout", ParameterStructures.byPosition), "hello"));
say("no params", await conn.sendRequest("noted"));
for (const n of [3, -32602, -32000]) {
  const err = await failure(conn.sendRequest(new RequestType("fail", ParameterStructures.byPosition), n));
  say("refused", err.code, err.message, err.data);
}
say("no method", (await failure(conn.sendRequest("nothing"))).code);
for (let i = 0; i < 100; i++) await conn.sendNotification(new NotificationType("note", ParameterStructures.byPosition), i);
await conn.sendNotification("$/setTrace", { value: "off" });
say("noted", await conn.sendRequest("noted"));
say("asked", await conn.sendRequest("ask", "reverse", "abc"));
say("asked", await conn.sendRequest("ask", "broken", "abc"));
say("asked", await conn.sendRequest("ask", "nothing", "abc"));
say("gave up", await conn.sendRequest("giveUp"), await cancelled.next());
await conn.sendRequest("work", "work");
say("progress", await progress.next(), await progress.next());

const source = new CancellationTokenSource();
const call = failure(conn.sendRequest("slow", source.token));
await begun.next();
source.cancel();
const err = await call;
say("cancelled", err.code, err.message);

conn.sendRequest("leave", 0).catch(() => {}); // what it has not begun when the close comes, the library drops
say("left", await closed.next());

const again = () => new Promise((onConnection) => {
  const webSocket = new WebSocket(url);
  listen({ webSocket, onConnection: (c) => { c.listen(); onConnection([c, webSocket]); } });
});
const [leaving, socket] = await again();
for (let i = 0; i < 100; i++) await leaving.sendNotification("note", i);
socket.close(1000, "bye");
const [last] = await again();
say("gone", await last.sendRequest("gone"), await last.sendRequest("noted"));
last.end();
last.dispose();
process.exit();
