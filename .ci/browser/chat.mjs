// Drives the chat example in a real browser, with several pages at once.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { args, executablePath, fail, picture, start, test, watch } from "./harness.mjs";
import { looks } from "./looks.mjs";

export async function chat(binary) {
  let server = await start(binary, "127.0.0.1:0");
  const addr = new URL(server.url).host;
  const browser = await chromium.launch({ executablePath, headless: true, args, timeout: 120_000 });
  const complaints = [];
  let away = false;

  // open is a page in a context of its own: another visitor.
  async function open(options = {}) {
    const context = await browser.newContext({ viewport: { width: 900, height: 640 }, locale: "en-GB", ...options });
    context.setDefaultTimeout(120_000);
    const page = await context.newPage();
    watch(page, complaints, () => away);
    await page.goto(server.url);
    return page;
  }
  async function join(page, name) {
    await page.getByLabel("Your name").fill(name);
    await page.getByRole("button", { name: "Join" }).click();
    await connected(page);
  }
  const connected = (page) => page.waitForSelector('#status[data-state="connected"]');
  const say = async (page, text) => {
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.keyboard.press("Enter");
  };
  const texts = (page) => page.locator("#log .text").allTextContents();
  // until waits for what a page is to have become.
  async function until(what, read, want) {
    const deadline = Date.now() + 60_000;
    for (;;) {
      const got = await read();
      try {
        return assert.deepEqual(got, want, what);
      } catch (error) {
        if (Date.now() > deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }
  const reads = (page, want) => until("messages", () => texts(page), want);
  const presents = (page, want) => until("who is present", () => page.locator("#people li").allTextContents(), want);

  try {
    const ada = await open();
    const bob = await open();
    const both = [ada, bob];
    const said = [];

    await test("chat: the page comes with its policy", async () => {
      const response = await ada.request.get(server.url);
      assert.match(response.headers()["content-security-policy"], /^default-src 'none'; script-src 'self';/);
      await ada.screenshot({ path: picture("chat-sign-in.png") });
    });
    await test("chat: a name that cannot be is refused, and why", async () => {
      await ada.getByLabel("Your name").fill("a\u202eda");
      await ada.getByRole("button", { name: "Join" }).click();
      await ada.getByText("the name has characters that cannot be shown").waitFor();
      assert.equal(await ada.isVisible("#chat"), false);
    });
    await test("chat: two pages join a room and see each other", async () => {
      await join(ada, "Ada");
      await presents(ada, ["Ada (you)"]);
      await join(bob, "Bob");
      await presents(ada, ["Ada (you)", "Bob"]);
      await presents(bob, ["Ada", "Bob (you)"]);
    });
    await test("chat: messages of each are seen by both, in one order", async () => {
      for (const [page, text] of [
        [ada, "Is anybody there?"],
        [bob, "Yes! I came a moment ago."],
        [ada, "Then this works: your page and mine,\neach with one WebSocket."],
        [bob, "And it knows who is here."],
      ]) {
        said.push(text);
        await page.getByLabel("Message", { exact: true }).fill(text);
        await page.getByRole("button", { name: "Send" }).click();
        for (const page of both) await reads(page, said);
      }
      assert.deepEqual(await bob.locator("#log .from").allTextContents(), ["Ada", "Bob", "Ada", "Bob"]);
      assert.equal(await bob.locator("#log .mine").count(), 2);
    });
    await test("chat: who types fast is not reordered", async () => {
      for (const text of ["one", "two", "three"]) {
        said.push(text);
        await say(ada, text);
      }
      for (const page of both) await reads(page, said);
    });
    await test("chat: typing is noticed by the other, and passes", async () => {
      await bob.getByLabel("Message", { exact: true }).pressSequentially("Wait, I am", { delay: 10 });
      await ada.getByText("Bob is typing…").waitFor();
      await ada.screenshot({ path: picture("chat-ada.png") });
      await bob.screenshot({ path: picture("chat-bob.png") });
      assert.equal(await bob.textContent("#typing"), "");
      await until("the notice", () => ada.textContent("#typing"), "");
    });
    await test("chat: a message ends the notice at once", async () => {
      await bob.getByLabel("Message", { exact: true }).pressSequentially(" still", { delay: 10 });
      await ada.getByText("Bob is typing…").waitFor();
      await bob.keyboard.press("Enter");
      said.push("Wait, I am still");
      await reads(ada, said);
      assert.equal(await ada.textContent("#typing"), "");
    });
    await test("chat: the looks of it", () => looks(bob, "chat"));
    await test("chat: markup is text", async () => {
      const attack = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script><b>bold</b>`;
      said.push(attack);
      await say(bob, attack);
      for (const page of both) {
        await reads(page, said);
        assert.equal(await page.locator("#log img, #log script, #log b").count(), 0);
        assert.equal(await page.title(), "lobby · Chat");
      }
    });
    await test("chat: so is a name", async () => {
      const eve = await open();
      await join(eve, "<i>eve</i>");
      await presents(ada, ["<i>eve</i>", "Ada (you)", "Bob"]);
      assert.equal(await ada.locator("#people i").count(), 0);
      await eve.context().close();
      await presents(ada, ["Ada (you)", "Bob"]);
    });
    await test("chat: a message that is refused says why, and is not lost", async () => {
      await bob.evaluate(() => document.querySelector("#text").removeAttribute("maxlength"));
      await say(bob, "x".repeat(2001));
      await bob.getByText("Not sent: the message has 2001 characters").waitFor();
      assert.equal((await bob.inputValue("#text")).length, 2001);
      await bob.fill("#text", "");
    });
    await test("chat: a reload keeps the name and the history", async () => {
      await bob.reload();
      await connected(bob);
      await reads(bob, said);
      await presents(bob, ["Ada", "Bob (you)"]);
      assert.equal(await bob.locator(".gap").count(), 0);
    });
    await test("chat: who comes late has the history", async () => {
      const carol = await open({ viewport: { width: 360, height: 640 }, colorScheme: "dark" });
      await join(carol, "Carol");
      await reads(carol, said);
      await presents(carol, ["Ada", "Bob", "Carol (you)"]);
      const width = await carol.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= 360, `the page is ${width} pixels wide`);
      await carol.screenshot({ path: picture("chat-phone.png") });
      await carol.context().close();
      await presents(ada, ["Ada (you)", "Bob"]);
    });
    await test("chat: nothing runs over a narrow window", async () => {
      for (const hash of ["", "#a-room-with-a-name-as-long-as-it"]) {
        const eve = await open({ viewport: { width: 320, height: 568 } });
        await eve.goto(server.url + hash);
        const wide = () => eve.evaluate(() => document.documentElement.scrollWidth);
        assert.equal(await wide(), 320);
        await join(eve, "Eve, whose name is long");
        if (!hash) await reads(eve, said);
        assert.equal(await wide(), 320);
        await eve.screenshot({ path: picture("chat-narrow.png") });
        await eve.context().close();
      }
    });
    await test("chat: who types is forgotten with the link, and when they leave", async () => {
      const eve = await open();
      const fay = await open();
      let cut;
      await eve.routeWebSocket(/\/rpc$/, (ws) => {
        ws.connectToServer();
        cut = () => ws.close({ code: 4999 });
      });
      // The page's own timers stand still: what goes is not what they take away.
      await eve.addInitScript(() => {
        const { setTimeout } = window;
        window.setTimeout = (fn, ms, ...rest) => setTimeout(fn, ms === 4000 ? 1e9 : ms, ...rest);
      });
      for (const page of [eve, fay]) {
        await page.goto(`${server.url}#quiet`);
        await page.reload();
      }
      await join(eve, "Eve");
      await join(fay, "Fay");
      await presents(eve, ["Eve (you)", "Fay"]);
      const types = async () => {
        await fay.getByLabel("Message", { exact: true }).pressSequentially("x");
        await eve.getByText("Fay is typing…").waitFor();
      };
      await types();
      await cut();
      await until("the notice", () => eve.textContent("#typing"), "");
      await connected(eve);
      await presents(eve, ["Eve (you)", "Fay"]);
      await new Promise((resolve) => setTimeout(resolve, 2000)); // the page tells others that often
      await types();
      await fay.context().close();
      await presents(eve, ["Eve (you)"]);
      await until("the notice", () => eve.textContent("#typing"), "");
      await eve.context().close();
    });
    await test("chat: another room has other messages and people", async () => {
      await bob.getByRole("link", { name: "music" }).click();
      await presents(bob, ["Bob (you)"]);
      await presents(ada, ["Ada (you)"]);
      await say(bob, "la la la");
      await reads(bob, ["la la la"]);
      await bob.getByLabel("Another room").fill("Größe 7");
      await bob.getByRole("button", { name: "Go" }).click();
      await bob.getByText("a room's name has at most 32 small letters").waitFor();
      await bob.goBack();
      await bob.goBack();
      await reads(bob, said);
      await presents(bob, ["Ada", "Bob (you)"]);
      await reads(ada, said);
    });
    await test("chat: a lost link is mended, without a gap or a repetition", async () => {
      // Only this page's way to the server goes; the others talk on.
      const eve = await open();
      let cut;
      await eve.routeWebSocket(/\/rpc$/, (ws) => {
        ws.connectToServer();
        cut = () => ws.close({ code: 4999 });
      });
      await join(eve, "Eve");
      await reads(eve, said);
      await presents(ada, ["Ada (you)", "Bob", "Eve"]);
      await cut();
      said.push("Eve is not there now");
      await say(ada, said.at(-1));
      await reads(eve, said);
      assert.equal(await eve.locator(".gap").count(), 0);
      await presents(eve, ["Ada", "Bob", "Eve (you)"]);
      await eve.context().close();
    });
    await test("chat: what a slow page has missed is counted", async () => {
      const eve = await open();
      await eve.route("**/api.js", async (route) => {
        const script = await (await route.fetch()).text();
        const subscribe = "typedrpc.subscribe(conn, room, key, options)";
        assert.ok(script.includes(subscribe));
        const late = "async function* late(events) { for await (const event of events) yield event.value.text === 'late' ? { ...event, missed: 3 } : event; }";
        await route.fulfill({ contentType: "text/javascript", body: `${script.replace(subscribe, `late(${subscribe})`)}\n${late}` });
      });
      await eve.reload();
      await join(eve, "Eve");
      await reads(eve, said);
      said.push("late");
      await say(ada, "late");
      await reads(eve, said);
      assert.deepEqual(await eve.locator(".gap").allTextContents(), ["3 messages are missing here"]);
      await eve.context().close();
    });
    await test("chat: what no history has any more is a gap, and says so", async () => {
      const eve = await open();
      let cut;
      let gone = false;
      await eve.routeWebSocket(/\/rpc$/, (ws) => {
        if (gone) return ws.close({ code: 1013 });
        const server = ws.connectToServer();
        cut = () => Promise.all([server.close({ code: 1000 }), ws.close({ code: 4999 })]);
      });
      await eve.goto(`${server.url}#busy`);
      await join(eve, "Eve");
      await say(eve, "before");
      await reads(eve, ["before"]);
      gone = true;
      await cut();
      // More than the history keeps, from several so that none is too fast.
      await ada.evaluate(async () => {
        const { connect } = await import("./typedrpc.js");
        const { newClient, signIn } = await import("./api.js");
        for (let i = 0; i < 6; i++) {
          const client = newClient(connect("rpc", { signIn: signIn(() => ({ name: `guest ${i}` })) }));
          for (let n = 0; n < 9; n++) await client.chat.say({ room: "busy", text: `${i} ${n}` });
          await client.conn.close();
        }
      });
      gone = false;
      await eve.getByRole("button", { name: "Try now" }).click({ timeout: 1000 }).catch(() => {}); // it may be trying
      await until("the history", async () => (await texts(eve)).length, 51);
      assert.deepEqual(await eve.locator("#log li:nth-child(2)").allTextContents(), ["the connection was lost: messages may be missing here"]);
      assert.equal(await eve.locator(".gap").count(), 1);
      await eve.context().close();
    });
    for (const [how, signal] of [["shut down", "SIGINT"], ["killed", "SIGKILL"]]) {
      await test(`chat: the server is ${how}, both pages come back and go on`, async () => {
        await presents(ada, ["Ada (you)", "Bob"]);
        away = true;
        const status = await server.stop(signal);
        if (signal === "SIGINT") assert.equal(status, 0);
        for (const page of both) await page.waitForSelector('#status[data-state="waiting"]');
        await ada.fill("#text", "to nobody");
        await ada.keyboard.press("Enter");
        await ada.getByText("Not sent: not connected").waitFor();
        assert.equal(await ada.inputValue("#text"), "to nobody");
        await ada.screenshot({ path: picture("chat-away.png") });
        server = await start(binary, addr);
        for (const page of both) await connected(page);
        away = false;
        await until("the error", () => ada.isVisible("#chat-error"), false); // it is over
        assert.equal(await ada.inputValue("#text"), "to nobody");
        for (const page of both) await presents(page, page === ada ? ["Ada (you)", "Bob"] : ["Ada", "Bob (you)"]);
        for (const [page, text] of [[ada, `here again (${how})`], [bob, `me too (${how})`]]) {
          said.push(text);
          await say(page, text);
          for (const page of both) await reads(page, said);
        }
      });
    }
    await test("chat: that may be a gap, and both pages say so", async () => {
      for (const page of both) {
        assert.equal(await page.locator(".gap").count(), 2);
        assert.equal(await page.locator(".gap").first().textContent(), "the connection was lost: messages may be missing here");
      }
      await ada.screenshot({ path: picture("chat-gap.png") });
    });
    await test("chat: leaving is seen, and forgets the name", async () => {
      await bob.getByRole("button", { name: "Leave" }).click();
      await presents(ada, ["Ada (you)"]);
      await bob.reload();
      await bob.getByLabel("Your name").waitFor();
      assert.equal(await bob.isVisible("#chat"), false);
    });
    await test("chat: the console has no errors or warnings", () => assert.deepEqual(complaints, []));
  } catch (error) {
    fail(error.stack);
  } finally {
    await browser.close();
    await server.stop();
  }
}
