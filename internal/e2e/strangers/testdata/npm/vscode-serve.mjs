// A language server, as vscode-jsonrpc has them, over vscode-ws-jsonrpc.
import { ParameterStructures, ProgressType, RequestType, ResponseError } from "vscode-jsonrpc";
import { createWebSocketConnection, toSocket } from "vscode-ws-jsonrpc";
import { WebSocketServer } from "ws";
import { serveUntilTold } from "./peer.mjs";

const wss = new WebSocketServer({ port: 0, host: "127.0.0.1" });
wss.on("connection", (ws) => {
  const conn = createWebSocketConnection(toSocket(ws), console);
  conn.onRequest("shout", (s) => s.toUpperCase());
  conn.onRequest("subtract", ({ minuend, subtrahend }) => minuend - subtrahend);
  conn.onRequest("shutdown", () => null); // as the protocol has it
  conn.onRequest("fail", (code) => new ResponseError(code, "refused", { why: "because" }));
  conn.onRequest("slow", (token) => new Promise((resolve) => {
    token.onCancellationRequested(() => { conn.sendNotification("wasCancelled"); resolve(new ResponseError(-32800, "cancelled")); });
    conn.sendNotification("begun");
  }));
  conn.onRequest("work", (token) => { for (const kind of ["begin", "end"]) conn.sendProgress(new ProgressType(), token, { kind }); return null; });
  conn.onRequest("ask", () => conn.sendRequest(new RequestType("reverse", ParameterStructures.byPosition), "abc"));
  conn.onRequest("askBroken", () => conn.sendRequest("broken", "abc").catch((e) => `${e.code} ${e.message} ${JSON.stringify(e.data)}`));
  conn.onNotification("note", (n) => conn.sendNotification("pushed", n + 1));
  conn.onNotification("exit", () => { // all that was sent is there before the close
    for (let i = 0; i < 100; i++) conn.sendNotification("pushed", i);
    ws.close(1000, "exit");
  });
  conn.listen();
});
wss.on("listening", () => serveUntilTold(wss.address().port));
