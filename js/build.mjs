// Builds the client, and says what it weighs: node build.mjs
//
//   --check   fails when the built file in dist is not what the sources make
//   --lib     the package for npm: one readable module, and its types
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { minify } from "terser";
import { internalNames } from "./names.mjs";

process.chdir(import.meta.dirname);
const options = {
  bundle: true,
  absWorkingDir: import.meta.dirname,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  logLevel: "warning",
  mangleProps: new RegExp(`^(${internalNames().join("|")})$`),
};
/**
 * A second pass, which finds what the first cannot. Nothing here reads a property for its effects. It is given short names:
 * Terser 5.51 that has long ones, is told to shorten none and passes several times drops `link?.fail()` and `link?.check()`
 * of client.ts, so shortening names in a third pass, which would be smaller, is wrong. test/hosts.test.ts finds it.
 */
const second = { module: true, ecma: 2022, compress: { passes: 4, pure_getters: true, unsafe_arrows: true, unsafe_methods: true, inline: 1 } };
const dist = "dist/typedrpc.js";

// Pages that use a part of the client: what they weigh at most, minified and gzipped, and what they are to weigh one
// day (docs/rough-edges.md). The first grows for what is wrong, and for nothing else.
const pages = [
  { name: "a page of one call", entry: "size/one.ts", most: 8_660, goal: 4_500 },
  { name: "calls, streams, credentials", entry: "size/streams.ts", most: 13_310, goal: 6_000 },
  { name: "everything", entry: "src/index.ts", most: 16_400, goal: 8_000 },
];

const bundle = async (entry) => {
  const { outputFiles } = await build({ ...options, entryPoints: [entry], minify: true, write: false });
  const { code } = await minify(outputFiles[0].text, second);
  return Buffer.from(code);
};

let failed = false;
for (const { name, entry, most, goal } of pages) {
  const bytes = await bundle(entry);
  const size = gzipSync(bytes, { level: 9 }).length;
  console.log(`${name}: ${size} bytes, ${bytes.length} before gzip; at most ${most}, the goal is ${goal}`);
  failed ||= size > most;
}
if (failed) {
  console.error("too large");
  process.exit(1);
}

const banner = "// The client of typedrpc, in one file. It is built from js/src: node js/build.mjs\n";
const built = banner + (await bundle("src/index.ts")).toString();
if (process.argv.includes("--check")) {
  if (readFileSync(dist, "utf8") !== built) {
    console.error(`${dist} is stale: run npm run build in js`);
    process.exit(1);
  }
} else if (process.argv.includes("--lib")) {
  await build({ ...options, entryPoints: ["src/index.ts"], outfile: "lib/index.js", sourcemap: true });
  const { status } = spawnSync(path.resolve("node_modules/.bin/tsc"), ["-p", "tsconfig.lib.json"], { stdio: "inherit" });
  process.exit(status ?? 1);
} else {
  mkdirSync(path.dirname(dist), { recursive: true });
  writeFileSync(dist, built);
}
