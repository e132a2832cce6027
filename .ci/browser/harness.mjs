// What the tests of the examples' pages have in common.
import { spawn } from "node:child_process";
import { mkdtemp, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

export const executablePath = process.env.CHROMIUM || "/usr/bin/chromium";
export const args = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

export const screenshot = process.env.SCREENSHOT || join(await mkdtemp(join(tmpdir(), "typedrpc-browser-")), "calculator.png");
const pictures = dirname(screenshot);
await mkdir(pictures, { recursive: true });
export const picture = (name) => join(pictures, name);

for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

const children = new Set();
process.once("exit", () => children.forEach((child) => child.kill())); // also when the test is interrupted

// kept has a process end with this one.
export function kept(child) {
  children.add(child);
  child.once("exit", () => children.delete(child));
  return child;
}

// start runs an example until it says where it listens. An address that was another's
// before may be taken for a moment, by whoever was given its port meanwhile.
export async function start(binary, addr, ...more) {
  for (const deadline = Date.now() + 60_000; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
    try {
      return await begin(binary, addr, ...more);
    } catch (error) {
      if (!error.message.includes("address already in use") || Date.now() > deadline) throw error;
    }
  }
}

async function begin(binary, addr, ...more) {
  const child = kept(spawn(binary, ["-addr", addr, ...more], { stdio: ["ignore", "ignore", "pipe"] }));
  const ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
  let log = "";
  child.stderr.setEncoding("utf8");
  const url = await new Promise((resolve, reject) => {
    child.once("error", reject);
    ended.then((status) => reject(new Error(`${binary} ended with ${status}:\n${log}`)));
    child.stderr.on("data", (text) => {
      log += text;
      const found = /url=(\S+)/.exec(log);
      if (found) resolve(found[1]);
    });
  });
  return {
    url,
    log: () => log,
    async stop(signal = "SIGINT") {
      child.kill(signal);
      return ended;
    },
  };
}

let passed = 0;
let failed = 0;

export async function test(name, fn) {
  try {
    await fn();
    passed++;
    console.log(`ok    ${name}`);
  } catch (error) {
    fail(`${name}\n      ${error.message.replaceAll("\n", "\n      ")}`);
  }
}

export function fail(text) {
  failed++;
  console.log(`FAIL  ${text}`);
}

export function summary() {
  console.log(`screenshots in ${pictures}`);
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
}

// watch collects what the browser complains about. That a connection is refused
// is no fault of the page while away() says that the server is not there.
export function watch(page, complaints, away) {
  page.on("console", (message) => {
    const expected = away() && message.text().includes("WebSocket connection to");
    if (["error", "warning"].includes(message.type()) && !expected) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("requestfailed", (request) => complaints.push(`${request.url()}: ${request.failure().errorText}`));
}
