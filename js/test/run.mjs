// Runs the tests, or those that are named: node test/run.mjs wire session
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import path from "node:path";

process.chdir(path.join(import.meta.dirname, ".."));
const names = process.argv.slice(2);
const entryPoints = readdirSync("test")
  .filter((file) => file.endsWith(".test.ts"))
  .map((file) => `test/${file}`)
  .filter((file) => !names.length || names.some((name) => file.includes(name)));
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
});
const jsserver = path.resolve(".build/jsserver");
const built = spawnSync("go", ["build", "-o", jsserver, "./internal/e2e/jsserver"], { cwd: "..", stdio: "inherit" });
if (built.status) process.exit(1);
const files = entryPoints.map((file) => path.join(".build", path.basename(file, ".ts") + ".js"));
const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", "--test-reporter=spec", "--test-timeout=600000", ...files], {
  stdio: "inherit",
  env: { ...process.env, JSSERVER: jsserver },
});
process.exit(status ?? 1);
