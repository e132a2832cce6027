// Drives the dashboard in a real browser, and cuts its links.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chromium } from "playwright-core";
import { bareBrowser } from "./bare.mjs";
import { args, executablePath, fail, picture, start, test, watch } from "./harness.mjs";
import { audit, looks } from "./looks.mjs";
import { proxy } from "./proxy.mjs";

const cuts = 50;

export async function dashboard(binary) {
  let server = await start(binary, "127.0.0.1:0");
  const line = await proxy(server.url);
  // Playwright keeps pages out of the cache for going back.
  const browser = await chromium.launch({ executablePath, headless: true, args, timeout: 120_000, ignoreDefaultArgs: ["--disable-back-forward-cache"] });
  const complaints = [];
  let away = false;

  async function open(options = {}) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-GB", ...options });
    context.setDefaultTimeout(120_000);
    const page = await context.newPage();
    watch(page, complaints, () => away);
    await page.goto(line.url);
    await live(page);
    return page;
  }
  const number = async (page, id) => Number((await page.textContent(`#${id}`)).replaceAll(",", ""));
  const ledger = async (page) => {
    const rows = {};
    for (const row of await page.locator("#ledger tr").all()) {
      const [sent, received, gaps, duplicates] = (await row.locator("td").allTextContents()).map((text) => Number(text.replaceAll(",", "")));
      rows[await row.getAttribute("data-row")] = { sent, received, gaps, duplicates };
    }
    return rows;
  };
  const live = (page) => page.waitForSelector('#market[data-state="live"]');
  // until waits for what a page is to show.
  const until = (page, test, ...args) => page.waitForFunction(test, ...args);
  const shows = (page, id, least) => until(page, ([id, least]) => Number(document.getElementById(id).textContent.replaceAll(",", "")) >= least, [id, least]);
  // goesOn waits until every row of the ledger has more than it has now.
  async function goesOn(page) {
    await until(page, () => document.querySelectorAll("#ledger td").length === 16);
    const before = await ledger(page);
    await until(page, (before) => [...document.querySelectorAll("#ledger tr")].every((row) => Number(row.cells[2].textContent.replaceAll(",", "")) > before[row.dataset.row].received + 3), before);
  }
  // whole looks that nothing is missing or came twice.
  async function whole(page, { resumes, lost = 0 }) {
    await goesOn(page);
    for (const [row, { gaps, duplicates }] of Object.entries(await ledger(page))) assert.deepEqual({ gaps, duplicates }, { gaps: 0, duplicates: 0 }, row);
    assert.deepEqual(
      { gaps: await number(page, "gaps"), duplicates: await number(page, "duplicates"), lost: await number(page, "lost") },
      { gaps: 0, duplicates: 0, lost },
    );
    if (resumes) assert.ok((await number(page, "resumes")) >= resumes, `it went on ${await number(page, "resumes")} times`);
  }

  try {
    const page = await open();
    await test("dashboard: prices, trades, pulses and calls arrive", async () => {
      await whole(page, { resumes: 0 });
      assert.equal(await page.locator("#prices tr").count(), 6);
      assert.match(await page.textContent("#prices tr"), /Plums\d+\.\d\d[▲▼] /);
    });
    await test(`dashboard: ${cuts} cut links in the middle of everything, and nothing is lost`, async () => {
      await page.getByRole("button", { name: "Send 16 MB" }).click();
      await page.waitForSelector("#uploads progress");
      await page.setInputFiles("#file", { name: "a.bin", mimeType: "application/octet-stream", buffer: randomBytes(8 << 20) });
      await page.evaluate(async (cuts) => {
        for (let i = 1; i <= cuts; i++) {
          document.getElementById("cut").click();
          while (Number(document.getElementById("resumes").textContent) < i) await new Promise((resolve) => setTimeout(resolve, 5));
        }
      }, cuts);
      await shows(page, "cuts", cuts);
      await until(page, () => document.querySelectorAll("#uploads .said.good").length === 2);
      for (const said of await page.locator("#uploads .said").allTextContents()) assert.match(said, /^SHA-256 is the same here and there: [0-9a-f]{12}…/);
      assert.match(await page.textContent("#uploads"), /The link was cut .* meanwhile\./);
      await whole(page, { resumes: cuts });
      assert.match(await page.textContent("#log"), /The server cut a write of \d+ bytes after \d+\./);
      await page.screenshot({ path: picture("dashboard-cut.png"), fullPage: true });
    });
    await test("dashboard: what happens is said to screen readers", async () => {
      await until(page, () => /^The (link was cut \d+ times\. Nothing is lost|upload of .* is complete)\.$/.test(document.querySelector("#said").textContent));
      assert.equal(await page.getAttribute("#said", "role"), "status");
      assert.equal(await page.getAttribute("#status", "role"), "status");
    });
    await test("dashboard: the looks of it", () => looks(page, "dashboard"));

    await test("dashboard: the console has no errors or warnings", () => assert.deepEqual(complaints, []));
    away = true; // from here on links cannot be made now and then, which the browser notes

    await test("dashboard: the keyboard does all of it", async () => {
      const page = await open();
      const order = [];
      for (let i = 0; i < 13; i++) {
        await page.keyboard.press("Tab");
        order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.value || document.activeElement.textContent));
      }
      assert.deepEqual(order, ["cut", "storm", "away", "fruit", "Plums", "Figs", "Quinces", "Cherries", "Mirabelles", "Medlars", "random", "file", "log"]);
      const before = await number(page, "cuts");
      await page.focus("#cut");
      await page.keyboard.press("Enter");
      await shows(page, "cuts", before + 1);
      await page.getByRole("button", { name: "Plums" }).focus();
      await page.keyboard.press("Space");
      assert.equal(await page.getByRole("button", { name: "Plums" }).getAttribute("aria-pressed"), "false");
      await page.keyboard.press("Space");
      await page.focus("#storm");
      await page.keyboard.press("Space");
      await shows(page, "cuts", before + 3);
      await page.keyboard.press("Space");
      assert.equal(await page.getAttribute("#storm", "aria-pressed"), "false");
      await page.focus("#markets :checked");
      await page.keyboard.press("ArrowRight");
      await page.getByText("Nobody has traded here yet.").waitFor();
      await looks(page, "dashboard-empty", [[360, "dark"]]);
      await page.keyboard.press("ArrowRight");
      await page.getByText("This market is closed. It opens on Friday").waitFor();
      await looks(page, "dashboard-error", [[1440, "light"]]);
      await page.getByRole("button", { name: "Try again" }).click();
      await page.getByText("This market is closed. It opens on Friday").waitFor();
      await page.getByRole("radio", { name: "Fruit" }).check();
      await live(page);
      await whole(page, { resumes: 3 });
      await page.context().close();
    });
    await test("dashboard: a page that is not let in says so, and goes on", async () => {
      const before = await number(page, "resumes");
      await page.getByRole("button", { name: "Be offline for 8 s" }).click();
      await page.getByText(/^Offline for \d+ s\./).waitFor();
      await page.waitForSelector('#status:not([data-state="connected"])');
      await audit(page, "offline");
      await page.screenshot({ path: picture("dashboard-offline.png"), fullPage: true });
      await shows(page, "resumes", before + 1);
      await page.waitForSelector("#offline", { state: "hidden" });
      await whole(page, { resumes: before + 1 });
    });
    await test("dashboard: a page without a network, and with it again", async () => {
      const before = await number(page, "resumes");
      await page.context().setOffline(true);
      line.cut();
      await page.getByText(/^Offline for \d+ s\./).waitFor();
      await page.context().setOffline(false);
      await page.waitForSelector("#offline", { state: "hidden" });
      await shows(page, "resumes", before + 1);
      await whole(page, { resumes: before + 1 });
    });
    await test("dashboard: away from the page, and back", async () => {
      const before = await number(page, "resumes");
      await page.evaluate(() => addEventListener("pageshow", ({ persisted }) => (globalThis.kept = persisted)));
      await page.goto(`${line.url}?another`);
      await live(page);
      await page.goBack({ waitUntil: "commit" });
      await until(page, () => document.querySelector("#status").dataset.state === "connected");
      // The browser closes the link of a page that it keeps. It need not keep any.
      const kept = await page.evaluate(() => globalThis.kept);
      if (!kept) console.log("      this browser has made it anew");
      await whole(page, { resumes: kept ? before + 1 : 0 });
    });
    await test("dashboard: several pages, each with its own links", async () => {
      const other = await open({ viewport: { width: 360, height: 740 }, colorScheme: "dark" });
      await other.getByRole("button", { name: "Cut the link" }).click();
      await shows(other, "cuts", 1);
      await whole(other, { resumes: 1 });
      await other.context().close();
    });
    await test("dashboard: the server is killed and started again, and the page says what is lost", async () => {
      const fresh = await open();
      await server.stop("SIGKILL");
      await fresh.getByText(/^Offline for \d+ s\./).waitFor();
      server = await start(binary, new URL(server.url).host);
      await shows(fresh, "lost", 1);
      await fresh.getByText("Back, in a new session").waitFor();
      await goesOn(fresh);
      const { pulses, calls, ticks } = await ledger(fresh);
      for (const row of [pulses, calls]) assert.deepEqual([row.gaps, row.duplicates], [0, 0]);
      assert.equal(ticks.duplicates, 0);
      assert.ok(ticks.gaps > 0, "no server was there to make prices");
      await fresh.context().close();
    });
    await test("dashboard: nor has it then, but of links", () => assert.deepEqual(complaints, []));
    await tabs(line);
  } catch (error) {
    fail(error.stack);
  } finally {
    await browser.close();
    line.stop();
    await server.stop();
  }
}

// tabs hides the page, and freezes it.
async function tabs(line) {
  const browser = await bareBrowser();
  try {
    const tab = await browser.newTab(line.url);
    const other = await browser.newTab("about:blank");
    await tab.show();
    await tab.until(`document.querySelector("#market").dataset.state === "live"`);
    const state = () =>
      tab.evaluate(`(() => {
        const number = (element) => Number(element.textContent.replaceAll(",", ""));
        const state = Object.fromEntries(["gaps", "duplicates", "lost", "resumes"].map((id) => [id, number(document.getElementById(id))]));
        state.received = [...document.querySelectorAll("#ledger tr")].map((row) => number(row.cells[2] ?? row));
        return state;
      })()`);
    const goesOn = async () => {
      const { received } = await state();
      await tab.until(`${JSON.stringify(received)}.every((n, i) => Number(document.querySelectorAll("#ledger tr")[i].cells[2].textContent.replaceAll(",", "")) > n + 3)`);
    };
    const whole = async (resumes) => {
      await goesOn();
      const { received, ...rest } = await state();
      assert.deepEqual(rest, { gaps: 0, duplicates: 0, lost: 0, resumes });
    };
    await tab.until(`document.querySelectorAll("#ledger td").length === 16`);
    const resumed = (times) => tab.until(`document.getElementById("resumes").textContent === "${times}"`);

    await test("dashboard: a hidden tab, whose link breaks", async () => {
      await other.show();
      await tab.until("document.hidden");
      await goesOn();
      line.cut();
      await resumed(1);
      await whole(1);
      await tab.show();
      await tab.until("!document.hidden");
      await whole(1);
    });
    await test("dashboard: a frozen tab, whose link breaks meanwhile", async () => {
      await tab.evaluate(`for (const event of ["freeze", "resume"]) document.addEventListener(event, () => globalThis.heard = event)`);
      await other.show();
      await tab.until("document.hidden");
      await tab.send("Page.setWebLifecycleState", { state: "frozen" });
      await tab.until(`globalThis.heard === "freeze"`);
      const { received } = await state();
      line.cut();
      await new Promise((resolve) => setTimeout(resolve, 1000)); // in which it could do something
      assert.deepEqual((await state()).received, received);
      await tab.send("Page.setWebLifecycleState", { state: "active" });
      await tab.show();
      await tab.until("!document.hidden");
      await resumed(2);
      await whole(2);
    });
    await test("dashboard: a frozen tab, whose network lives", async () => {
      await other.show();
      await tab.until("document.hidden");
      await tab.send("Page.setWebLifecycleState", { state: "frozen" });
      await tab.until(`globalThis.heard === "freeze"`);
      await new Promise((resolve) => setTimeout(resolve, 1000)); // in which it is sent some
      await tab.send("Page.setWebLifecycleState", { state: "active" });
      await tab.show();
      await tab.until("!document.hidden");
      await resumed(3); // the browser ends the link of a frozen page
      await whole(3);
    });
  } finally {
    await browser.close();
  }
}
