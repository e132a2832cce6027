// ws without a library on top, as a client, or with "serve" as a server that is as
// sloppy as one writes it in an afternoon.
import { WebSocket, WebSocketServer } from "ws";
import { queue, say, serveUntilTold, url } from "./peer.mjs";

async function open(options) {
  const ws = new WebSocket(url, options);
  const got = queue();
  ws.on("message", (data, isBinary) => got.push([String(data), isBinary]));
  ws.on("close", (code, reason) => got.push([code, String(reason)]));
  ws.on("pong", (data) => got.push(["pong", String(data)]));
  await new Promise((resolve, reject) => ws.on("open", resolve).on("error", reject));
  return { ws, got };
}

if (url === "serve") {
  const wss = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: { threshold: 0 } });
  wss.on("connection", (ws) => {
    ws.on("pong", (data) => ws.send(JSON.stringify({ jsonrpc: "2.0", method: "pushed", params: [Number(String(data))] })));
    ws.on("message", (data) => {
      const { id, method, params } = JSON.parse(data);
      switch (method) {
        case "shout": return ws.send(Buffer.from(JSON.stringify({ id, result: params[0].toUpperCase(), error: null })));
        case "text": return ws.send(JSON.stringify({ id: String(id), result: params[0] }));
        case "fail": return ws.send(JSON.stringify({ id, error: { code: params[0], message: "refused" } }));
        case "string": return ws.send(JSON.stringify({ id, error: "just a string" }));
        case "undefined": return ws.send(JSON.stringify({ jsonrpc: "2.0", id, result: undefined }));
        case "ping": return ws.ping("7");
        case "terminate": return ws.terminate();
        case "bye": // all of it at once
          ws.send(JSON.stringify(Array.from({ length: 100 }, (_, i) => ({ jsonrpc: "2.0", method: "pushed", params: [i] }))));
          ws.send(JSON.stringify({ jsonrpc: "2.0", id, result: "bye" }));
          return ws.close(1000);
        case "leave":
          for (let i = 0; i < params[0]; i++) ws.send(JSON.stringify({ jsonrpc: "2.0", method: "pushed", params: [i] }));
          return ws.close(params[1], "done");
      }
    });
  });
  wss.on("listening", () => serveUntilTold(wss.address().port));
} else {
  let { ws, got } = await open();
  const ask = async (text) => { ws.send(text); return (await got.next())[0]; };
  say("null", await ask('{"jsonrpc":"2.0","id":null,"method":"shout","params":["a"]}'));
  say("null", await ask('[{"jsonrpc":"2.0","id":null,"method":"shout","params":["a"]},{"jsonrpc":"2.0","method":"note","params":[1]},{"jsonrpc":"2.0","id":null,"method":"fail","params":[3]}]'));
  say("undefined", await ask('{"jsonrpc":"2.0","id":7,"method":"noted"}'));
  ws.ping("are you there"); // and nothing else
  say("ping", await got.next());
  ws.send(Buffer.from('{"jsonrpc":"2.0","id":1,"method":"shout","params":["binary"]}'));
  say("binary", await got.next());
  ws.send('{"jsonrpc":"2.0","id":2,"method":"shout","params":["text"]}');
  say("text", await got.next());
  ws.send(JSON.stringify({ jsonrpc: "2.0", id: 3, method: "ask", params: ["reverse", "abc"] }));
  const asked = JSON.parse((await got.next())[0]);
  ws.send(JSON.stringify({ jsonrpc: "2.0", id: asked.id })); // its result is undefined
  say("undefined", (await got.next())[0]);
  for (const size of [1 << 20, 5 << 18]) {
    ws.send(JSON.stringify({ jsonrpc: "2.0", id: 4, method: "shout", params: ["x".repeat(size)] }));
    say("too large", await got.next());
  }

  for (const perMessageDeflate of [false, true]) {
    ({ ws, got } = await open({ perMessageDeflate }));
    const asks = async (text) => { ws.send(text, { compress: true }); return (await got.next())[0]; };
    for (let i = 0; i < 3; i++) say("compressed", JSON.parse(await asks(JSON.stringify({ jsonrpc: "2.0", id: i, method: "shout", params: ["the same words ".repeat(200)] }))).result.length);
    for (let i = 0; i < 100; i++) ws.send(JSON.stringify({ jsonrpc: "2.0", method: "note", params: [i] }));
    ws.close(1000);
    say("closed", await got.next());
    ({ ws, got } = await open());
    for (const method of ["gone", "noted"]) say(method, JSON.parse(await ask(JSON.stringify({ jsonrpc: "2.0", id: 1, method }))).result);
    ws.send(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "leave", params: [100] }));
    for (let i = 0; i < 101; i++) await got.next(); // its answer, too
    say("left", await got.next());
  }
}
