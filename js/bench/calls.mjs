// Calls per second over one connection from Node, with this client and with others: node calls.mjs [rounds]
//
// 100,000 calls, 64 at a time, each of them checked. Each client has its server in a process of its own: rpc-websockets
// and socket.io theirs in Node, ours a Go server. They take turns, and what is printed is the median of the rounds. The
// client's own time on the processor is less in doubt on a machine that is busy.
import { spawn, spawnSync } from "node:child_process";
import { createInterface } from "node:readline";
import { mkdirSync } from "node:fs";
import path from "node:path";

process.chdir(import.meta.dirname);
const calls = 100_000;
const atOnce = 64;

const servers = {
  async "rpc-websockets"() {
    const { Server } = await import("rpc-websockets");
    const server = new Server({ port: 0, host: "127.0.0.1" });
    server.register("sum", ([a, b]) => a + b);
    await new Promise((resolve) => server.on("listening", resolve));
    return server.wss.address().port;
  },
  async "socket.io"() {
    const { Server } = await import("socket.io");
    const { createServer } = await import("node:http");
    const web = createServer();
    const io = new Server(web, { transports: ["websocket"] });
    io.on("connection", (socket) => socket.on("sum", (a, b, answer) => answer(a + b)));
    await new Promise((resolve) => web.listen(0, "127.0.0.1", resolve));
    return web.address().port;
  },
};

if (process.argv[2] === "serve") {
  console.log(`127.0.0.1:${await servers[process.argv[3]]()}`);
} else {
  await compare(Number(process.argv[2] ?? 5));
}

/** Starts a program that prints its address. */
async function start(program, ...args) {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const address = await new Promise((resolve) => createInterface({ input: child.stdout }).once("line", resolve));
  return { address, stop: () => child.kill() };
}

async function compare(rounds) {
  mkdirSync("../.build", { recursive: true });
  const jsserver = path.resolve("../.build/jsserver");
  const commands = [
    ["go", ["build", "-o", jsserver, "./internal/e2e/jsserver"], "../.."],
    [process.execPath, ["../build.mjs", "--lib"], "."],
  ];
  for (const [command, args, cwd] of commands) {
    if (spawnSync(command, args, { cwd, stdio: ["ignore", "ignore", "inherit"] }).status) process.exit(1);
  }
  const [{ call, connect, method }, { Client }, { io }, { WebSocket }] = await Promise.all([
    import("../lib/index.js"),
    import("rpc-websockets"),
    import("socket.io-client"),
    import("ws"), // of which rpc-websockets and engine.io make their sockets too
  ]);
  const here = process.argv[1];

  const clients = {
    async typedrpc() {
      const server = await start(jsserver, "-quiet");
      const conn = connect(`ws://${server.address}/`, { WebSocket });
      const multiply = method("math.multiply");
      return { run: (a, b) => call(conn, multiply, { A: a, B: b }), right: (a, b) => a * b, stop: () => conn.close().then(server.stop) };
    },
    async "rpc-websockets"() {
      const server = await start(process.execPath, here, "serve", "rpc-websockets");
      const client = new Client(`ws://${server.address}`, { reconnect: false });
      await new Promise((resolve) => client.on("open", resolve));
      return { run: (a, b) => client.call("sum", [a, b]), right: (a, b) => a + b, stop: () => (client.close(), server.stop()) };
    },
    async "socket.io-client, acknowledgements"() {
      const server = await start(process.execPath, here, "serve", "socket.io");
      const socket = io(`http://${server.address}`, { transports: ["websocket"], reconnection: false });
      await new Promise((resolve) => socket.on("connect", resolve));
      return { run: (a, b) => socket.emitWithAck("sum", a, b), right: (a, b) => a + b, stop: () => (socket.close(), server.stop()) };
    },
  };

  const rates = Object.fromEntries(Object.keys(clients).map((name) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const [name, open] of Object.entries(clients)) {
      const { run, right, stop } = await open();
      const used = process.cpuUsage();
      const rate = await measure(run, right, round ? calls : 5_000); // the first is for the compilers
      const { user, system } = process.cpuUsage(used);
      if (round) rates[name].push({ rate, cpu: (user + system) / calls });
      await stop();
    }
  }
  const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
  console.log(`| client | calls per second, the median of ${rounds} | least to most | processor time of the client, a call |`);
  console.log("| --- | --- | --- | --- |");
  for (const [name, all] of Object.entries(rates)) {
    const each = all.map(({ rate }) => rate);
    const text = (rate) => Math.round(rate).toLocaleString("en");
    console.log(`| ${name} | ${text(median(each))} | ${text(each[0])} to ${text(each.at(-1))} | ${median(all.map(({ cpu }) => cpu)).toFixed(1)} µs |`);
  }
}

/** Calls per second of so many calls. */
async function measure(run, right, count) {
  let next = 0;
  const caller = async () => {
    while (next < count) {
      const i = next++;
      const answer = await run(i, 3);
      if (answer !== right(i, 3)) throw new Error(`${answer} is not the answer to ${i}`);
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: atOnce }, caller));
  return (count / (performance.now() - began)) * 1000;
}
