// Drives the inspector in a real browser, over a server that guests use.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { args, executablePath, fail, picture, start, test, watch } from "./harness.mjs";
import { audit, looks } from "./looks.mjs";
import { proxy } from "./proxy.mjs";

const someLooks = [[360, "light"], [1440, "dark"]];

export async function inspector(binary) {
  const server = await start(binary, "127.0.0.1:0");
  const closed = await start(binary, "127.0.0.1:0", "-secret", "open sesame", "-guests", "0");
  const line = await proxy(server.url);
  const browser = await chromium.launch({ executablePath, headless: true, args, timeout: 120_000 });
  const complaints = [];
  let away = false;
  async function open(url) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-GB" });
    context.setDefaultTimeout(120_000);
    const page = await context.newPage();
    watch(page, complaints, () => away);
    await page.goto(url);
    return page;
  }
  try {
    const page = await open(new URL("/inspect/", line.url).href);
    const go = (hash) => page.evaluate((hash) => (location.hash = hash), hash);
    const button = (name) => page.getByRole("button", { name, exact: true });
    const newest = page.locator(".run").first();
    const ends = (text) => newest.locator(".state").filter({ hasText: text }).waitFor();
    // tile is what a tile shows.
    const tile = (name) => page.locator(".tile", { has: page.getByText(name, { exact: true }) }).locator("dd").first();

    await test("inspector: the overview has numbers and charts", async () => {
      await page.locator('#status[data-state="connected"]').waitFor();
      await page.waitForFunction(() => Number(document.querySelector(".tile dd")?.textContent) === 6);
      await page.waitForFunction(() => [...document.querySelectorAll(".tile .line")].every((line) => /L/.test(line.getAttribute("d"))));
      assert.equal(await page.locator(".tile").count(), 12);
      assert.match(await tile("Streams open").textContent(), /^\d+$/);
      await looks(page, "inspector-overview");
    });

    await test("inspector: a method is called by its form, and by JSON", async () => {
      await page.getByRole("navigation", { name: "Views" }).getByRole("link", { name: "Methods" }).click();
      await page.getByRole("link", { name: /^place/ }).click();
      await button("Add one").click();
      await page.getByLabel("table").fill("7");
      await page.getByLabel("article").fill("tea");
      await page.getByLabel("size").selectOption("large");
      await page.getByLabel("count").fill("2");
      await button("Add guest").click();
      await page.getByLabel("name").fill("ann");
      await button("Write it as JSON").click();
      const written = JSON.parse(await page.getByLabel("Request, as JSON").inputValue());
      assert.deepEqual(written, { table: 7, items: [{ article: "tea", size: "large", count: 2 }], guest: { name: "ann" } });
      written.note = "hot";
      await page.getByLabel("Request, as JSON").fill(JSON.stringify(written));
      await button("Use the form").click();
      assert.equal(await page.getByLabel("note").inputValue(), "hot");
      await looks(page, "inspector-form", someLooks);
      await button("Call").click();
      await ends("done");
      assert.match(await newest.locator(".answer").textContent(), /"total": 5,[^]*"note": "hot"/);
    });
    await test("inspector: a call that fails says how", async () => {
      await page.getByRole("link", { name: /^get/ }).click();
      await page.getByRole("textbox", { name: "number" }).fill("many");
      await button("Call").click();
      await page.getByRole("alert").getByText("number has to be a whole number").waitFor();
      await page.getByRole("textbox", { name: "number" }).fill("1000000");
      await button("Call").click();
      await ends("NotFound");
      assert.match(await newest.textContent(), /there is no order 1000000.*outcome answered · fault orders\.missing.*"last"/s);
    });
    await test("inspector: a stream is left in the middle", async () => {
      await page.getByRole("link", { name: /^ticks/ }).click();
      await page.getByRole("textbox", { name: "millis" }).fill("20");
      await button("Open").click();
      await newest.locator(".items li").nth(5).waitFor();
      await button("Leave").click();
      await ends("left");
      const items = await newest.locator(".items li").count();
      assert.ok(items >= 6);
    });
    await test("inspector: items are sent, one way and both ways", async () => {
      await page.getByRole("link", { name: /^sum/ }).click();
      await button("Open").click();
      for (const n of ["20", "22"]) {
        await newest.getByLabel("Item, as JSON").fill(n);
        await newest.getByRole("button", { name: "Send" }).click();
      }
      await newest.getByRole("button", { name: "End", exact: true }).click();
      await ends("done");
      assert.match(await newest.textContent(), /42/);
      await page.getByRole("link", { name: /^echo/ }).click();
      await button("Open").click();
      await newest.getByLabel("Item, as JSON").fill('"hello"');
      await newest.getByRole("button", { name: "Send" }).click();
      await newest.locator(".items").getByText('"hello"').waitFor();
      await newest.getByRole("button", { name: "End", exact: true }).click();
      await ends("done");
    });
    await test("inspector: a topic is subscribed to, with what it remembers", async () => {
      await page.getByRole("link", { name: /^room/ }).click();
      await page.getByRole("textbox", { name: "key" }).fill("lobby");
      await button("Subscribe").click();
      await newest.locator(".items").getByText("history").first().waitFor();
      await page.waitForFunction(() => /^\d+ · [^·]+$/.test(document.querySelector(".run .items li:last-child .hint")?.textContent ?? ""));
      await audit(page, "methods");
      await page.screenshot({ path: picture("inspector-topic.png"), fullPage: true });
      await button("Leave").click();
    });
    await test("inspector: calls are made as whom the credentials name", async () => {
      await page.getByText("Calls are made as whom these credentials name").click();
      await page.getByLabel(/^Credentials/).fill('{"name": "zoe"}');
      await button("Use these").click();
      await page.getByRole("link", { name: /^seen/ }).click();
      await button("Notify").click();
      await ends("done");
      await go("connections");
      await page.getByLabel("Filter by subject or address").fill("zoe");
      await page.getByRole("cell", { name: "zoe" }).waitFor();
      assert.equal(new URL(page.url()).href.includes("zoe"), false);
    });

    await test("inspector: connections, and nobody like that", async () => {
      await page.getByLabel("Filter by subject or address").fill("somebody else");
      await page.getByText("Nobody like that").waitFor();
      await audit(page, "no connections");
      await page.getByLabel("Filter by subject or address").fill("");
      await page.getByRole("cell", { name: "cleo" }).waitFor();
      await page.getByLabel("Order", { exact: true }).selectOption("oldest");
      await page.waitForFunction(() => document.querySelector("#view-connections tbody td").textContent === "1");
      await page.getByLabel("Waiting for their clients alone").check();
      await page.getByText("Nobody waits").waitFor();
      await page.getByLabel("Waiting for their clients alone").uncheck();
      await page.getByRole("cell", { name: "cleo" }).waitFor();
      await looks(page, "inspector-connections", someLooks);
    });
    for (const [who, dialect] of [["ada", "binary"], ["cleo", "text"]]) {
      await test(`inspector: the frames of a connection, ${dialect}`, async () => {
        await go("connections");
        await page.getByRole("row", { name: new RegExp(`\\b${who}\\b`) }).click();
        await page.getByRole("heading", { name: /^Connection \d+$/ }).waitFor();
        await page.getByRole("definition").filter({ hasText: `${dialect} · json` }).waitFor();
        for (const type of ["CALL", "RESULT", "ITEM", "NOTIFY"]) await page.locator(".frames b").getByText(type, { exact: true }).first().waitFor();
        assert.equal(await page.locator(".frames code").count(), 0); // masked
        await page.getByLabel("Filter frames").fill("orders.place");
        await page.waitForFunction(() => [...document.querySelectorAll(".frames li")].filter((li) => li.checkVisibility()).every((li) => li.textContent.includes("orders.place")));
        await page.getByLabel("Filter frames").fill("");
        await button("Pause").click();
        if (who === "ada") await looks(page, "inspector-connection", someLooks);
      });
    }
    await test("inspector: topics", async () => {
      await go("topics");
      await page.getByRole("cell", { name: "talk.room" }).waitFor();
      await page.getByLabel("Filter by topic or key").fill("nothing");
      await page.getByText("Nothing like that").waitFor();
      await page.getByLabel("Filter by topic or key").fill("lob");
      await page.getByRole("cell", { name: "lobby" }).waitFor();
      await looks(page, "inspector-topics", someLooks);
    });
    await test("inspector: a connection is ended, and its client stays away", async () => {
      await go("connections");
      await page.getByRole("row", { name: /\bben\b/ }).click();
      await button("End it…").click();
      await page.getByRole("dialog").getByText(/^Connection \d+ of ben$/).waitFor();
      await audit(page, "the dialog");
      await page.screenshot({ path: picture("inspector-end.png") });
      await button("Cancel").click();
      await page.getByRole("dialog").waitFor({ state: "hidden" });
      await button("End it…").click();
      await page.getByLabel("Tell the client to stay away").check();
      await page.getByLabel("Reason, which the client is told").fill("closing time");
      await page.getByRole("dialog").getByRole("button", { name: "End", exact: true }).click();
      await page.getByText("It has ended").waitFor();
      assert.match(server.log(), /inspector: ended a connection.* by=loopback .*subject=ben stayAway=true/);
      await go("overview");
    });
    await test("inspector: the keyboard finds its way", async () => {
      await page.locator("h1").click();
      const seen = [];
      for (let i = 0; i < 4; i++) {
        await page.keyboard.press("Tab");
        seen.push(await page.evaluate(() => document.activeElement.textContent));
      }
      assert.deepEqual(seen, ["Overview", "Methods", "Connections", "Topics"]);
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => document.querySelector('nav a[aria-current="page"]').textContent === "Topics");
      await go("overview");
    });
    await test("inspector: the console has no errors or warnings", () => assert.deepEqual(complaints, []));
    away = true;
    await test("inspector: a link that breaks is said, and comes back", async () => {
      await page.locator(".tiles:not(.loading)").first().waitFor();
      await page.context().setOffline(true);
      line.cut();
      await page.getByText("what you see is what was last known").waitFor();
      await audit(page, "offline");
      await page.screenshot({ path: picture("inspector-offline.png") });
      await page.context().setOffline(false);
      await page.waitForSelector("#offline", { state: "hidden" });
      const before = await page.locator(".tile .line").nth(4).getAttribute("d");
      await page.waitForFunction((before) => document.querySelectorAll(".tile .line")[4].getAttribute("d") !== before, before);
      await go("methods/orders.get");
      await page.getByRole("textbox", { name: "number" }).fill("1");
      await button("Call").click();
      await ends("done"); // its second connection is back, too
    });

    await test("inspector: a secret is asked for, and what it allows is shown", async () => {
      const page = await open(closed.url);
      await page.getByLabel("Secret").fill("open barley");
      await page.getByRole("button", { name: "Let me in" }).click();
      await page.getByText("that is not the secret").waitFor();
      await looks(page, "inspector-secret", [[360, "dark"], [1440, "light"]]);
      await page.getByLabel("Secret").fill("open sesame");
      await page.keyboard.press("Enter");
      await page.getByText("as who knows the secret").waitFor();
      assert.equal(page.url(), closed.url);
      await page.getByRole("link", { name: "Connections" }).click();
      await page.getByText("Nobody is connected").waitFor();
      await page.getByRole("link", { name: "Topics" }).click();
      await page.getByText("Nobody subscribes").waitFor();
      await page.context().close();
    });
    await test("inspector: a server that ends is said", async () => {
      await server.stop();
      await page.getByText("what you see is what was last known").waitFor();
    });
    await test("inspector: nor has it then, but of links", () => assert.deepEqual(complaints, []));
  } catch (error) {
    fail(error.stack);
  } finally {
    await browser.close();
    line.stop();
    await server.stop();
    await closed.stop();
  }
}
