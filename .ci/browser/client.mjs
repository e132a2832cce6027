// The built client in a real browser, against the server of its own tests: everything at once
// while links are cut, and a worker.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { args, executablePath, fail, kept, test } from "./harness.mjs";
import { proxy } from "./proxy.mjs";

const work = { size: 1000, cuts: 50 };

// What the server of internal/e2e/jsserver declares, as far as it is used here.
const api = `
import { bidiStream, method, notification, serverStream } from "./typedrpc.js";
export const run = method("run");
export const back = method("back");
export const greet = method("page.greet");
export const note = notification("note");
export const notes = method("notes");
export const news = notification("news");
export const push = method("push");
export const multiply = method("math.multiply", { idempotent: true });
export const numbers = serverStream("numbers");
export const doubles = bidiStream("doubles");
`;

// Calls, notifications and items, each way, and what has become of them.
const chaos = `
import { call, connect, fragments, handle, handleNotification, notify, open, receive, serve } from "./typedrpc.js";
import * as api from "./api.js";

// The work goes on as links are cut, so that they are in the middle of it, however fast it is.
export async function chaos(url, { size, cuts }, linked) {
  const conn = connect(url, { fragments, backoff: { max: 100 } });
  const seen = { sessions: 0, resumes: 0, ran: [], greeted: [], news: [], doubles: [], numbers: [] };
  const waiting = new Set();
  conn.onState(({ state, resumed }) => {
    if (state !== "connected") return;
    seen[resumed ? "resumes" : "sessions"]++;
    linked(seen.resumes);
    for (const go of waiting) go();
    waiting.clear();
  });
  const turn = async (i) => {
    while (seen.resumes < Math.floor((i * cuts) / size)) await new Promise((go) => waiting.add(go));
  };
  serve(
    conn,
    handle(api.greet, (name) => (seen.greeted.push(Number(name)), name)),
    handleNotification(api.news, (text) => void seen.news.push(Number(text))),
  );
  const each = async (work) => {
    for (let i = 0; i < size; i++) {
      await turn(i);
      await work(i);
    }
  };
  const down = async () => {
    for await (const item of receive(conn, api.numbers, { From: 0, To: size })) {
      await turn(item);
      seen.numbers.push(item);
    }
  };
  const both = async () => {
    const stream = open(conn, api.doubles, "");
    const sent = each((i) => stream.send(i)).then(() => stream.end());
    for await (const item of stream) seen.doubles.push(item);
    await sent;
  };
  await Promise.all([
    each(async (i) => seen.ran.push(await call(conn, api.run, "chaos " + i))),
    each((i) => call(conn, api.back, String(i))),
    each((i) => notify(conn, api.note, i)),
    call(conn, api.push, { N: size }),
    down(),
    both(),
  ]);
  // The last notifications may still be on their way.
  while ((seen.notes = await call(conn, api.notes, "")).count < size || seen.news.length < size) await new Promise((go) => setTimeout(go, 5));
  await conn.close();
  return seen;
}
`;
const worker = `
import { chaos } from "./chaos.js";
onmessage = async ({ data: { url, work } }) => {
  try {
    postMessage({ seen: await chaos(url, work, (links) => postMessage({ links })) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
`;

export async function client(binary) {
  const files = {
    "/": ["text/html", "<!doctype html><html lang=en><link rel=icon href='data:,'><title>client</title>"],
    "/typedrpc.js": ["text/javascript", await readFile(new URL("../../js/dist/typedrpc.js", import.meta.url), "utf8")],
    "/api.js": ["text/javascript", api],
    "/chaos.js": ["text/javascript", chaos],
    "/worker.js": ["text/javascript", worker],
  };
  const web = createServer(({ url }, response) => {
    const [type, text] = files[url] ?? [];
    response.writeHead(type ? 200 : 404, { "content-type": `${type ?? "text/plain"}; charset=utf-8` }).end(text);
  });
  await new Promise((resolve) => web.listen(0, "127.0.0.1", resolve));
  const page = `http://127.0.0.1:${web.address().port}/`;
  const browser = await chromium.launch({ executablePath, headless: true, args, timeout: 120_000 });
  const complaints = [];

  // Each has a server of its own, which counts.
  async function during(run) {
    const server = kept(spawn(binary, ["-quiet"], { stdio: ["pipe", "pipe", "inherit"] }));
    const address = await new Promise((resolve) => createInterface({ input: server.stdout }).once("line", resolve));
    const line = await proxy(`http://${address}/`);
    const tab = await browser.newPage();
    tab.setDefaultTimeout(120_000);
    tab.on("pageerror", (error) => complaints.push(String(error)));
    try {
      await tab.goto(page);
      await tab.exposeFunction("linked", (resumes) => {
        if (resumes < work.cuts) setTimeout(() => line.cut(), Math.random() * 20);
      });
      return await run(tab, line.url);
    } finally {
      await tab.close();
      line.stop();
      server.kill();
    }
  }
  const all = Array.from({ length: work.size }, (_, i) => i);
  const check = (seen) => {
    assert.equal(seen.sessions, 1, "the session went on");
    assert.ok(seen.resumes >= work.cuts, `${seen.resumes} links`);
    assert.deepEqual(seen.ran, all.map(() => 1), "calls");
    assert.deepEqual(seen.greeted, all, "calls of the server's");
    assert.deepEqual(seen.notes, { count: work.size, wrong: [] }, "notifications");
    assert.deepEqual(seen.news, all, "notifications of the server's");
    assert.deepEqual(seen.numbers, all, "items of the server's");
    assert.deepEqual(seen.doubles, all.map((i) => 2 * i), "items both ways");
  };

  try {
    await test(`client: ${work.size} calls, notifications and items each way under ${work.cuts} cuts: once, in order`, async () =>
      check(await during((tab, url) => tab.evaluate(async ([url, work]) => (await import("./chaos.js")).chaos(url, work, globalThis.linked), [url, work]))));
    await test("client: the same in a worker", async () =>
      check(
        await during((tab, url) =>
          tab.evaluate(
            ([url, work]) =>
              new Promise((resolve, reject) => {
                const worker = new Worker("./worker.js", { type: "module" });
                worker.onerror = (event) => reject(new Error(event.message));
                worker.onmessage = ({ data: { seen, error, links } }) => {
                  if (error) reject(new Error(error));
                  else if (seen) resolve(seen);
                  else globalThis.linked(links);
                };
                worker.postMessage({ url, work });
              }),
            [url, work],
          ),
        ),
      ));
    await test("client: the page has no errors", () => assert.deepEqual(complaints, []));
  } catch (error) {
    fail(error.stack);
  } finally {
    await browser.close();
    web.close();
  }
}
