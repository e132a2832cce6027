// A page with nothing but what browsers have reads a server's streams, and pages of another
// site try to.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { chromium } from "playwright-core";
import { args, executablePath, fail, start, test } from "./harness.mjs";
import { proxy } from "./proxy.mjs";

export async function reader(binary, inspected) {
  const server = await start(binary, "127.0.0.1:0");
  const looked = await start(inspected, "127.0.0.1:0");
  const line = await proxy(server.url);
  const blank = (_, answer) => answer.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>blank</title>");
  const foreign = createServer(blank);
  await new Promise((resolve) => foreign.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({ executablePath, headless: true, args, timeout: 120_000 });
  try {
    const context = await browser.newContext();
    context.setDefaultTimeout(120_000);
    const page = await context.newPage();
    await page.route("**/own-page", (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html><title>own</title>" }));
    await page.goto(new URL("/own-page", line.url).href);

    await test("reader: a method is read", async () => {
      const answer = await page.evaluate(async () => (await fetch("/rpc?method=subtract&params=[42,23]")).json());
      assert.equal(answer.result, 19);
    });
    await test("reader: an EventSource goes on behind what it had, however often it is cut", async () => {
      await page.evaluate(() => {
        globalThis.seen = [];
        globalThis.opened = 0;
        globalThis.ticks = new EventSource('/rpc?method=ticks&params={"every":10}');
        ticks.onopen = () => opened++;
        ticks.onmessage = (event) => seen.push(Number(event.data));
      });
      for (let cuts = 1; cuts <= 3; cuts++) {
        const had = await page.evaluate(() => seen.length);
        await page.waitForFunction((n) => seen.length > n, had + 5);
        line.cut();
        await page.waitForFunction((n) => opened > n, cuts);
      }
      const had = await page.evaluate(() => seen.length);
      await page.waitForFunction((n) => seen.length > n, had + 5);
      const seen = await page.evaluate(() => (ticks.close(), globalThis.seen));
      assert.deepEqual(seen, seen.map((_, n) => n)); // none is lost, none comes twice
    });

    const other = await context.newPage();
    await other.goto(`http://127.0.0.1:${foreign.address().port}/`);
    // refused says what becomes of each way to reach url.
    const refused = (url) =>
      other.evaluate(async (url) => {
        const fetched = (how) => fetch(url, how).then((answer) => `answered ${answer.status}`, () => "refused");
        const told = (source, good, bad) =>
          new Promise((resolve) => {
            source.addEventListener(good, () => resolve("open"));
            source.addEventListener(bad, () => resolve("refused"));
          });
        return {
          get: await fetched({}),
          credentials: await fetched({ credentials: "include" }),
          header: await fetched({ headers: { Authorization: "Bearer x" } }),
          post: await fetched({ method: "POST", body: '{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}', headers: { "Content-Type": "application/json" } }),
          items: await fetched({ method: "POST", body: "1\n", headers: { "Content-Type": "application/x-ndjson" } }),
          events: await told(new EventSource(url, { withCredentials: true }), "open", "error"),
          plain: await told(new WebSocket(url.replace("http", "ws")), "open", "error"),
          binary: await told(new WebSocket(url.replace("http", "ws"), "typedrpc.v1.json"), "open", "error"),
        };
      }, url);
    const ways = ["get", "credentials", "header", "post", "items", "events", "plain", "binary"];
    const all = Object.fromEntries(ways.map((way) => [way, "refused"]));

    await test("reader: a page of another site reaches nothing of the server", async () => {
      assert.deepEqual(await refused(new URL('/rpc?method=ticks&params={"every":10}', server.url).href), all);
      assert.deepEqual(await refused(new URL("/rpc?method=subtract&params=[1,2]", server.url).href), all);
    });
    await test("reader: nor of an inspector", async () => {
      for (const path of ["/inspect/", "/inspect/app.js", "/inspect/rpc", "/inspect/target"]) {
        assert.deepEqual(await refused(new URL(path, looked.url).href), all, path);
      }
      const framed = await other.evaluate(
        (url) =>
          new Promise((resolve) => {
            const frame = document.createElement("iframe");
            frame.onload = () => resolve(frame.contentWindow.length); // an error page has no frames, nor a document that can be seen
            frame.src = url;
            document.body.append(frame);
          }),
        new URL("/inspect/", looked.url).href,
      );
      assert.equal(framed, 0);
      assert.equal(other.frames().some((frame) => frame.url().includes("/inspect/")), false);
    });
  } catch (error) {
    fail(error.stack);
  } finally {
    await browser.close();
    foreign.close();
    line.stop();
    await looked.stop();
    await server.stop();
  }
}
