// Drives the page whose program is Go, in a real browser.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { args, executablePath, fail, start, test, watch } from "./harness.mjs";
import { looks } from "./looks.mjs";
import { proxy } from "./proxy.mjs";

export async function wasm(binary) {
  const server = await start(binary, "127.0.0.1:0"); // which compiles the page's program
  const line = await proxy(server.url);
  const browser = await chromium.launch({ executablePath, headless: true, args, timeout: 120_000 });
  const complaints = [];
  try {
    const context = await browser.newContext({ viewport: { width: 900, height: 800 } });
    context.setDefaultTimeout(120_000);
    const page = await context.newPage();
    watch(page, complaints, () => false);
    const is = (id, text) => page.waitForFunction(([id, text]) => document.getElementById(id).textContent === text, [id, String(text)]);
    const number = async (id) => Number(await page.textContent(`#${id}`));
    const goesOn = async () => {
      const before = await number("received");
      await page.waitForFunction((before) => Number(document.getElementById("received").textContent) > before + 3, before);
    };
    const whole = async (links) => {
      await is("resumes", links);
      await goesOn();
      for (const [id, want] of Object.entries({ gaps: 0, duplicates: 0, sessions: 1, resumes: links, links: links + 1 })) assert.equal(await number(id), want, id);
    };

    await test("wasm: the page's program connects, and both sides say what they are", async () => {
      await page.goto(line.url);
      await page.waitForSelector('#status[data-state="connected"]');
      await page.getByText(/^Here: go1\.\S+, js\/wasm$/).waitFor();
      await page.getByText(/^There: go1\.\S+, \w+\/\w+$/).waitFor();
      assert.match(server.log(), /met a page go=go1\.\S+ os=js arch=wasm/);
    });
    await test("wasm: a call, and an error of the server's", async () => {
      await page.getByLabel("A number").fill("999999999989");
      await page.keyboard.press("Enter");
      await is("result", "999999999989 = 999999999989");
      await page.getByLabel("A number").fill("1");
      await page.getByRole("button", { name: "Factor it" }).click();
      await page.getByText("1 is not between 2 and 1000000000000").waitFor();
      await page.getByLabel("A number").fill("5040");
      await page.getByRole("button", { name: "Factor it" }).click();
      await is("result", "5040 = 2 × 2 × 2 × 2 × 3 × 3 × 5 × 7");
      assert.equal(await page.isVisible("#error"), false);
    });
    let links = 0;
    await test("wasm: links that the page gives up do not end its session", async () => {
      while (links < 5) {
        await page.getByRole("button", { name: "Give the link up" }).click();
        await whole(++links);
      }
    });
    await test("wasm: nor do those that are cut", async () => {
      while (links < 10) {
        line.cut();
        await whole(++links);
      }
      assert.doesNotMatch(server.log(), /a session has ended/);
    });
    await test("wasm: the looks of it", () => looks(page, "wasm"));
    await test("wasm: the console has no errors or warnings", () => assert.deepEqual(complaints, []));
  } catch (error) {
    fail(error.stack);
  } finally {
    await browser.close();
    line.stop();
    await server.stop();
  }
}
