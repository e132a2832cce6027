// Drives the examples' pages in a real browser: the calculator's here, the chat's
// in chat.mjs.
//
//   CALCULATOR, CHAT   the built examples (see run.sh)
//   CHROMIUM           default /usr/bin/chromium
//   SCREENSHOT         where to put a picture of the calculator; more pictures
//                      go beside it. Default: a new temporary directory.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { chat } from "./chat.mjs";
import { args, executablePath, fail, picture, screenshot, start, summary, test, watch } from "./harness.mjs";

const calculator = process.env.CALCULATOR;
if (!calculator || !process.env.CHAT) {
  console.error("CALCULATOR and CHAT must be the paths of the built examples; run.sh builds them");
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
    viewport: { width: 900, height: 700 },
  });
  browser.setDefaultTimeout(10_000);
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
    await shows("#error", "-4 is negative: it has no real square root (code -32602)");
    assert.equal(await page.textContent("#result"), "");
  });
  await test("a call after an error clears it", async () => {
    await calculate(9, ROOT);
    await shows("#result", "√9 = 3");
    assert.equal(await page.isVisible("#error"), false);
  });
  await test("an unknown method is an error", async () => {
    await click("Call a method that does not exist");
    await shows("#error", 'no method "cubeRoot" (code -32601)');
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
    assert.match(server.log(), /call from the page method=squareRoot params=\[9\] .*result=3/);
    assert.match(server.log(), /call to the page method=page.confirm .*result=true/);
  });
  await test("a question that the server takes back disappears", async () => {
    // The server would do it after a minute; here it seems to do it at once.
    const other = await browser.newPage();
    let toPage;
    let question;
    await other.routeWebSocket(/\/rpc$/, (ws) => {
      toPage = ws;
      ws.connectToServer().onMessage((text) => {
        question ??= JSON.parse(text).method && JSON.parse(text).id;
        ws.send(text);
      });
    });
    await other.goto(server.url);
    await other.fill("#number", "2000000");
    await other.getByRole("button", { name: MULTIPLY }).click();
    await other.waitForSelector("#confirm[open]");
    toPage.send(JSON.stringify({ jsonrpc: "2.0", method: "$/cancelRequest", params: { id: question } }));
    await other.waitForSelector("#confirm", { state: "hidden" });
    await other.waitForSelector("#error:not([hidden])");
    await other.close();
  });
  await test("the page answers whatever its methods throw or return", async () => {
    const other = await browser.newPage();
    const answers = new Map();
    let toPage;
    await other.routeWebSocket(/\/test$/, (ws) => {
      toPage = ws;
      ws.onMessage((text) => answers.set(JSON.parse(text).id, JSON.parse(text)));
    });
    await other.goto(server.url);
    await other.evaluate(async () => {
      const { connect } = await import("./rpc-client.js");
      const no = (more) => Object.assign(new Error("no"), more);
      await new Promise((resolve) => connect(new URL("test", location.href).href.replace("http", "ws"), {
        onState: (state) => state === "connected" && resolve(),
        methods: {
          text: () => { throw "just so"; }, nothing: () => Promise.reject(), "string code": () => { throw no({ code: "E_NO" }); },
          code: () => { throw no({ code: 9 }); }, bigint: () => 1n, "bigint code": () => { throw no({ code: 1n }); },
          loop: () => { const o = {}; return (o.o = o); }, function: () => () => 1, undefined: () => undefined,
        },
      }));
    });
    const INTERNAL = -32603;
    const cases = {
      text: [INTERNAL, "just so"], nothing: [INTERNAL, "the method failed"], "string code": [INTERNAL, "no"], code: [9, "no"],
      bigint: [INTERNAL], "bigint code": [INTERNAL, "no"], loop: [INTERNAL], function: [INTERNAL], undefined: [], unknown: [-32601],
    };
    for (const [i, [method, [code, message]]] of Object.entries(cases).entries()) {
      toPage.send(JSON.stringify({ jsonrpc: "2.0", id: i + 1, method, params: [] }));
      for (const deadline = Date.now() + 5000; !answers.has(i + 1); await new Promise((resolve) => setTimeout(resolve, 5))) {
        assert.ok(Date.now() < deadline, `${method} was not answered`);
      }
      const { result, error } = answers.get(i + 1);
      if (code === undefined) assert.equal(result, null);
      else assert.equal(error?.code, code, method);
      if (message) assert.equal(error.message, message);
    }
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
  await test("a question and its call end with the connection", async () => {
    await calculate(3000000, MULTIPLY);
    await shows("#question", "3000000 is a large number");
    away = true;
    // Nobody answers, so the server runs out of patience and closes.
    assert.equal(await server.stop(), 0);
    await shows("#status", "connection lost");
    await shows("#error", "the connection was lost before the answer came");
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
  await test("an idle server stops at once, with status 0", async () => {
    away = true;
    const began = Date.now();
    assert.equal(await server.stop(), 0);
    assert.ok(Date.now() - began < 2500, `it took ${Date.now() - began} ms`);
  });
  await test("the console has no errors or warnings", () => assert.deepEqual(complaints, []));
} catch (error) {
  fail(error.stack);
} finally {
  await browser?.close();
  await server.stop();
  await rm(profile, { recursive: true, force: true });
}
await chat(process.env.CHAT);
summary();
