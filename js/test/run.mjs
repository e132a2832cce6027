// Runs the tests, or those that are named: node test/run.mjs wire session
//
//   --built   those of the client's, but for the long one, against the built file in dist
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import path from "node:path";

process.chdir(path.join(import.meta.dirname, ".."));
const built = process.argv.includes("--built");
const names = process.argv.slice(2).filter((name) => name !== "--built");
const entryPoints = readdirSync("test")
  .filter((file) => file.endsWith(".test.ts"))
  .map((file) => `test/${file}`)
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
const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", "--test-reporter=spec", "--test-timeout=600000", ...files], {
  stdio: "inherit",
  env: { ...process.env, JSSERVER: jsserver },
});
process.exit(status ?? 1);

/** Has tests import a built file where they name a source. */
function inPlaceOf(filter, file) {
  return { name: "built", setup: ({ onResolve }) => onResolve({ filter }, () => ({ path: file, external: true })) };
}
