// rpc-websockets, as a client, or with "serve" as a server.
import { Client, Server } from "rpc-websockets";
import { failure, queue, say, serveUntilTold, url } from "./peer.mjs";

if (url === "serve") {
  const server = new Server({ port: 0, host: "127.0.0.1" });
  server.register("shout", ([s]) => s.toUpperCase());
  server.register("subtract", ({ minuend, subtrahend }) => minuend - subtrahend);
  server.register("fail", ([code]) => { throw server.createError(code, "refused", { why: "because" }); });
  server.register("throw", () => { throw new TypeError("no such thing"); });
  server.register("account", () => "secret").protected();
  server.setAuth(({ user }) => user === "ada");
  server.register("note", ([n]) => server.emit("noted", n));
  server.register("tick", ([n]) => { for (let i = 0; i < n; i++) server.emit("ticks", i, "tick"); return n; });
  server.register("name", (user) => { server.emit("names", user); return true; });
  server.register("drop", (_, id) => { server.of("/").connected()[id].close(1012, "back soon"); });
  for (const name of ["noted", "ticks", "names"]) server.event(name);
  server.on("listening", () => serveUntilTold(server.wss.address().port));
} else {
  const client = new Client(url, { reconnect_interval: 50, max_reconnects: 0 });
  const opened = queue(), closed = queue(), ticks = queue();
  client.on("open", () => opened.push("open"));
  client.on("close", (code, reason) => closed.push([code, String(reason)]));
  client.on("error", () => {}); // while nobody listens
  client.on("ticks", ticks.push);
  const pushed = queue();
  client.on("pushed", pushed.push);
  await opened.next();
  say("by position", await client.call("subtract", [42, 23]));
  say("by name", await client.call("subtract", { minuend: 42, subtrahend: 23 }));
  for (const n of [3, -32602, -32000]) say("refused", await failure(client.call("fail", [n])));
  say("no method", (await failure(client.call("nothing"))).code);
  say("login", await client.login({ user: "ada" }));
  for (let i = 0; i < 100; i++) await client.notify("note", [i]);
  say("noted", await client.call("noted"));
  say("subscribed", await client.subscribe(["ticks", "other"]));
  say("ticks", await ticks.next(), await ticks.next(), await ticks.next());
  say("unsubscribed", await client.unsubscribe("ticks"));
  for (let i = 0; i < 2; i++) {
    client.notify("restart");
    say("closed", await closed.next());
    say("again", await opened.next(), await client.call("subtract", [42, 23]));
  }
  client.call("leave", [100]).catch(() => {});
  for (let i = 0; i < 100; i++) if ((await pushed.next())[0] !== i) throw new Error("out of order");
  say("left", await closed.next());
}
