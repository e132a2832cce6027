// What a page weighs that makes one call, with this client and with others: node size.mjs
//
// Each is what its own documents show, bundled and minified the same way. Of ours it is the package as npm has it.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { minify } from "terser";

process.chdir(import.meta.dirname);
const made = spawnSync(process.execPath, ["../build.mjs", "--lib"], { stdio: ["ignore", "ignore", "inherit"] });
if (made.status) process.exit(1);

const pages = {
  "typedrpc, one call": `
    import { call, connect, method } from "../lib/index.js";
    const conn = connect("/rpc");
    call(conn, method("sum"), [5, 3]).then(console.log);`,
  "typedrpc, everything": `export * from "../lib/index.js";`,
  "rpc-websockets": `
    import { Client } from "rpc-websockets";
    const ws = new Client("wss://example.com/rpc");
    ws.on("open", () => ws.call("sum", [5, 3]).then(console.log));`,
  "socket.io-client": `
    import { io } from "socket.io-client";
    const socket = io({ transports: ["websocket"] });
    socket.emitWithAck("sum", 5, 3).then(console.log);`,
  "@trpc/client": `
    import { createTRPCClient, createWSClient, wsLink } from "@trpc/client";
    const client = createWSClient({ url: "wss://example.com/rpc" });
    const trpc = createTRPCClient({ links: [wsLink({ client })] });
    trpc.sum.query([5, 3]).then(console.log);`,
  "@microsoft/signalr": `
    import { HubConnectionBuilder } from "@microsoft/signalr";
    const connection = new HubConnectionBuilder().withUrl("/rpc").withAutomaticReconnect().build();
    connection.start().then(() => connection.invoke("sum", 5, 3)).then(console.log);`,
  centrifuge: `
    import { Centrifuge } from "centrifuge";
    const centrifuge = new Centrifuge("wss://example.com/rpc");
    centrifuge.connect();
    centrifuge.rpc("sum", [5, 3]).then(console.log);`,
  capnweb: `
    import { newWebSocketRpcSession } from "capnweb";
    const api = newWebSocketRpcSession("wss://example.com/rpc");
    api.sum(5, 3).then(console.log);`,
};

const version = (name) => {
  const file = createRequire(import.meta.url).resolve.paths(name).map((dir) => path.join(dir, name, "package.json"));
  for (const one of file) {
    try {
      return createRequire(import.meta.url)(one).version;
    } catch {
      continue;
    }
  }
  return "";
};

console.log("| client | minified | and gzipped |");
console.log("| --- | --- | --- |");
for (const [name, contents] of Object.entries(pages)) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: import.meta.dirname },
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    charset: "utf8",
    minify: true,
    write: false,
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  const { code } = await minify(outputFiles[0].text, { module: true, ecma: 2022, compress: { passes: 4 } });
  console.log(`| ${name} ${version(name)} | ${Buffer.byteLength(code)} | ${gzipSync(code, { level: 9 }).length} |`);
}
