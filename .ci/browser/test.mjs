// Drives the examples' pages in a real browser: the calculator's here, the others' in the
// files that are called at the end.
//
//   BINARIES           the folder of the built programs (see run.sh)
//   CHROMIUM           default /usr/bin/chromium
//   SCREENSHOT         where to put a picture of the calculator; more pictures
//                      go beside it. Default: a new temporary directory.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { chat } from "./chat.mjs";
import { client } from "./client.mjs";
import { dashboard } from "./dashboard.mjs";
import { args, executablePath, fail, picture, screenshot, start, summary, test, watch } from "./harness.mjs";
import { inspector } from "./inspector.mjs";
import { looks } from "./looks.mjs";
import { reader } from "./reader.mjs";
import { wasm } from "./wasm.mjs";

const binaries = process.env.BINARIES;
const calculator = join(binaries ?? "", "calculator");
if (!binaries) {
  console.error("BINARIES must be the folder of the built programs; run.sh builds them");
  process.exit(2);
}

const profile = await mkdtemp(join(tmpdir(), "typedrpc-profile-"));
let server = await start(calculator, "127.0.0.1:0");
let browser;
try {
  browser = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args,
    timeout: 120_000,
    viewport: { width: 900, height: 700 },
  });
  browser.setDefaultTimeout(120_000);
  const page = browser.pages()[0] ?? (await browser.newPage());

  let away = false; // the server is, on purpose
  const complaints = [];
  watch(page, complaints, () => away);

  // Text appears when the answer comes: these wait for it.
  const shows = (selector, text) =>
    page.waitForFunction(
      ([selector, text]) => {
        const element = document.querySelector(selector);
        return element.checkVisibility() && element.textContent.includes(text);
      },
      [selector, text],
    ).catch(async () => assert.fail(`${selector} should show ${JSON.stringify(text)}, it shows ${JSON.stringify(await page.textContent(selector))}`));
  const click = (name) => page.getByRole("button", { name, exact: true }).click();
  const calculate = async (number, button) => {
    await page.fill("#number", String(number));
    await click(button);
  };
  const MULTIPLY = "Multiply by 1000";
  const ROOT = "Take square root";

  await test("the page connects", async () => {
    await page.goto(server.url);
    await shows("#status", "connected");
  });
  await test("multiply", async () => {
    await calculate(1500, MULTIPLY);
    await shows("#result", "1500 × 1000 = 1500000");
    assert.equal(await page.isVisible("#error"), false);
  });
  await test("square root", async () => {
    await calculate(2.25, ROOT);
    await shows("#result", "√2.25 = 1.5");
  });
  await test("the Enter key multiplies", async () => {
    await page.fill("#number", "7");
    await page.press("#number", "Enter");
    await shows("#result", "7 × 1000 = 7000");
    await page.screenshot({ path: screenshot });
  });
  await test("the square root of a negative number is an error", async () => {
    await calculate(-4, ROOT);
    await shows("#error", "-4 is negative: it has no real square root (code 3)");
    assert.equal(await page.textContent("#result"), "");
  });
  await test("a call after an error clears it", async () => {
    await calculate(9, ROOT);
    await shows("#result", "√9 = 3");
    assert.equal(await page.isVisible("#error"), false);
  });
  await test("an unknown method is an error", async () => {
    await click("Call a method that does not exist");
    await shows("#error", 'no method "cubeRoot" (code 12)');
  });
  await test("the server asks, and OK multiplies", async () => {
    await calculate(2000000, MULTIPLY);
    await shows("#question", "2000000 is a large number");
    await page.screenshot({ path: picture("confirm.png") });
    await click("OK");
    await shows("#result", "2000000 × 1000 = 2000000000");
  });
  for (const [how, no] of [
    ["Cancel", () => click("Cancel")],
    ["Escape", () => page.keyboard.press("Escape")],
  ]) {
    await test(`the server asks, and ${how} does not multiply`, async () => {
      await calculate(-2000000, MULTIPLY);
      await shows("#question", "-2000000 is a large number");
      await no();
      await shows("#error", "not multiplied, since you said no (code 10)");
      assert.equal(await page.isVisible("#confirm"), false);
    });
  }
  await test("the server logs the calls of both directions", () => {
    assert.match(server.log(), /call from the page method=math.squareRoot params=9 .*result=3/);
    assert.match(server.log(), /call to the page method=page.confirm .*result=true/);
  });
  await test("a question that the server takes back disappears", async () => {
    // The server would do it after a minute, or when nobody waits for the call that led to
    // it: here the page's call is given up.
    const other = await browser.newPage();
    await other.route("**/api.js", async (route) => {
      const script = await (await route.fetch()).text();
      const signal = "{ signal: (window.caller = new AbortController()).signal }";
      await route.fulfill({ contentType: "text/javascript", body: script.replace("call(conn, multiply, request, options)", `call(conn, multiply, request, ${signal})`) });
    });
    await other.goto(server.url);
    await other.fill("#number", "2000000");
    await other.getByRole("button", { name: MULTIPLY }).click();
    await other.waitForSelector("#confirm[open]");
    await other.evaluate(() => window.caller.abort());
    await other.waitForSelector("#confirm", { state: "hidden" });
    await other.waitForSelector("#error:not([hidden])");
    await other.close();
  });
  await test("the page answers whatever its handlers throw or return", async () => {
    const other = await browser.newPage();
    await other.goto(server.url);
    const ends = await other.evaluate(async () => {
      const { RpcError, call, connect, handle, method, serve } = await import("./typedrpc.js");
      const { multiply } = await import("./api.js");
      const no = (more) => Object.assign(new Error("no"), more);
      const handlers = {
        "a text": () => { throw "just so"; }, nothing: () => Promise.reject(), symbol: () => { throw Symbol("s"); },
        "string code": () => { throw no({ code: "E_NO" }); }, "bigint code": () => { throw no({ code: 1n }); },
        proxy: () => { throw new Proxy({}, { get() { throw new Error("never"); } }); },
        error: () => { throw new RpcError(9, "no data"); },
        bigint: () => 1n, loop: () => { const o = {}; return (o.o = o); }, date: () => new Date(0),
        "nothing at all": () => undefined, yes: () => true,
      };
      const conn = connect("rpc");
      const ends = {};
      for (const [name, fn] of Object.entries(handlers)) {
        serve(conn, handle(method("page.confirm"), fn));
        ends[name] = await call(conn, multiply, { a: 2e6, b: 2 }, { timeout: 60_000 }).catch(({ code, message }) => `${code} ${message}`);
      }
      await conn.close();
      return ends;
    });
    const asked = "9 cannot ask whether to multiply 2000000: ";
    for (const [name, end] of Object.entries(ends)) {
      if (name === "yes") assert.equal(end, 4e6);
      else if (name === "nothing at all") assert.equal(end, "10 not multiplied, since you said no");
      else assert.ok(String(end).startsWith(asked), `${name}: ${end}`);
    }
    assert.match(ends.error, /no data$/);
    await other.close();
  });
  await test("a call and a question go on over the next link", async () => {
    const other = await browser.newPage();
    let cut;
    await other.routeWebSocket(/\/rpc$/, (ws) => {
      ws.connectToServer();
      cut = () => ws.close({ code: 4999 });
    });
    await other.goto(server.url);
    await other.fill("#number", "2000000");
    await other.getByRole("button", { name: MULTIPLY }).click();
    await other.waitForSelector("#confirm[open]");
    const lost = other.evaluate(() => new Promise((resolve) => new MutationObserver(() => {
      if (document.querySelector("#status").dataset.state !== "connected") resolve();
    }).observe(document.querySelector("#status"), { attributes: true })));
    await cut();
    await lost;
    await other.waitForSelector('#status[data-state="connected"]');
    await other.getByRole("button", { name: "OK", exact: true }).click();
    await other.getByText("2000000 × 1000 = 2000000000").waitFor();
    await other.close();
  });
  await test("nothing runs over a narrow window", async () => {
    await page.setViewportSize({ width: 320, height: 640 });
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 320, `the page is ${width} pixels wide`);
    await page.screenshot({ path: picture("narrow.png") });
    await page.emulateMedia({ colorScheme: "dark" });
    await page.screenshot({ path: picture("dark.png") });
    await page.emulateMedia({ colorScheme: null });
    await page.setViewportSize({ width: 900, height: 700 });
  });
  await test("the looks of it", () => looks(page, "calculator"));
  await test("a question and its call end with the connection", async () => {
    await calculate(3000000, MULTIPLY);
    await shows("#question", "3000000 is a large number");
    away = true;
    // Nobody answers, so the server runs out of patience and closes.
    assert.equal(await server.stop(), 0);
    await shows("#status", "connection lost");
    await shows("#error", "the connection was lost");
    assert.equal(await page.isVisible("#confirm"), false);
    assert.equal(await page.getByRole("button", { name: ROOT }).isDisabled(), true);
  });
  await test("the page reconnects when the server is back", async () => {
    server = await start(calculator, new URL(server.url).host);
    await shows("#status", "connected");
    away = false;
    await calculate(16, ROOT);
    await shows("#result", "√16 = 4");
  });
  await test("an idle server stops, with status 0", async () => {
    away = true;
    assert.equal(await server.stop(), 0);
  });
  await test("the console has no errors or warnings", () => assert.deepEqual(complaints, []));
} catch (error) {
  fail(error.stack);
} finally {
  await browser?.close();
  await server.stop();
  await rm(profile, { recursive: true, force: true });
}
await chat(join(binaries, "chat"));
await dashboard(join(binaries, "dashboard"));
await wasm(join(binaries, "wasm"));
await client(join(binaries, "jsserver"));
await inspector(join(binaries, "inspected"));
await reader(join(binaries, "jsonrpc"), join(binaries, "inspected"));
summary();
