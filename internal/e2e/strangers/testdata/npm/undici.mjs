import { fetch, WebSocket } from "undici";
import { posts, queue, say, url } from "./peer.mjs";

const ws = new WebSocket(url, ["jsonrpc", "token.abc"]);
ws.binaryType = "arraybuffer";
const got = queue();
ws.onmessage = ({ data }) => got.push(data);
ws.onclose = ({ code, reason, wasClean }) => got.push([code, reason, wasClean]);
ws.onerror = ({ message }) => say("error", message);
await new Promise((resolve) => { ws.onopen = resolve; });
say("protocol", ws.protocol, ws.extensions);
const ask = async (m) => { ws.send(m); return got.next(); };
say("text", JSON.parse(await ask(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "shout", params: ["the same words ".repeat(2)] }))));
const bytes = await ask(new TextEncoder().encode('{"jsonrpc":"2.0","id":null,"method":"shout","params":["binary"]}'));
say("binary", bytes instanceof ArrayBuffer && new TextDecoder().decode(bytes));
say("refused", JSON.parse(await ask('{"jsonrpc":"2.0","id":"a","method":"fail","params":[3]}')).error);
ws.send('{"jsonrpc":"2.0","id":2,"method":"ask","params":["reverse","abc"]}');
const asked = JSON.parse(await got.next());
say("answered", JSON.parse(await ask(JSON.stringify({ jsonrpc: "2.0", id: asked.id, result: "cba" }))).result);
ws.send('{"jsonrpc":"2.0","id":3,"method":"leave","params":[100]}');
for (let i = 0; i < 101; i++) await got.next();
say("left", await got.next());

const post = async (body) => { const r = await fetch(posts, { method: "POST", headers: { "Content-Type": "application/json" }, body }); return [r.status, await r.text()]; };
say("post", await post('{"jsonrpc":"2.0","id":null,"method":"shout","params":["a"]}'));
say("post", await post('[{"jsonrpc":"2.0","id":"x","method":"subtract","params":{"minuend":42,"subtrahend":23}},{"jsonrpc":"2.0","method":"note","params":[1]},{"jsonrpc":"2.0","id":1,"method":"fail","params":[-32000]}]'));
say("post", await post('{"jsonrpc":"2.0","method":"note","params":[1]}'));
say("post", (await post(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "shout", params: ["x".repeat(1 << 20)] }))));
