// Runs the tests, or those that are named: node test/run.mjs wire session
//
//   --built     those of the client's, but for the long one, against the built file in dist
//   --node=22   those too, in a Node of test/hosts, over its own WebSocket
//   --hosts     a program with the built file in each host of test/hosts
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

process.chdir(path.join(import.meta.dirname, ".."));
const { values, positionals: names } = parseArgs({
  allowPositionals: true,
  options: { built: { type: "boolean" }, node: { type: "string" }, hosts: { type: "boolean" } },
});
const built = values.built || values.node;
const folder = values.hosts ? "test/hosts" : "test";
const entryPoints = readdirSync(folder)
  .filter((file) => file.endsWith(".test.ts"))
  .map((file) => `${folder}/${file}`)
  .filter((file) => (names.length ? names.some((name) => file.includes(name)) : !(built && /chaos|dist|wire/.test(file))));
rmSync(".build", { recursive: true, force: true });
await build({
  entryPoints,
  outdir: ".build",
  bundle: true,
  platform: "node",
  format: "esm",
  target: "es2022",
  packages: "external",
  sourcemap: "inline",
  logLevel: "warning",
  plugins: built ? [inPlaceOf(/\/src\/index\.js$/, path.resolve("dist/typedrpc.js"))] : [],
});
const jsserver = path.resolve(".build/jsserver");
const server = spawnSync("go", ["build", "-o", jsserver, "./internal/e2e/jsserver"], { cwd: "..", stdio: "inherit" });
if (server.status) process.exit(1);
const files = entryPoints.map((file) => path.join(".build", path.basename(file, ".ts") + ".js"));
const own = values.node && { OWN_WEBSOCKET: "" };
const node = values.node ? path.resolve(`test/hosts/node_modules/node-${values.node}/bin/node`) : process.execPath;
const { status, error } = spawnSync(node, ["--enable-source-maps", "--test", "--test-reporter=spec", "--test-timeout=600000", ...files], {
  stdio: "inherit",
  env: { ...process.env, ...own, JSSERVER: jsserver },
});
if (error) console.error(String(error)); // npm run hosts installs them
process.exit(status ?? 1);

/** Has tests import a built file where they name a source. */
function inPlaceOf(filter, file) {
  return { name: "built", setup: ({ onResolve }) => onResolve({ filter }, () => ({ path: file, external: true })) };
}
