// Drives the chat example in a real browser, with several pages at once.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { args, executablePath, fail, picture, start, test, watch } from "./harness.mjs";

export async function chat(binary) {
  let server = await start(binary, "127.0.0.1:0");
  const addr = new URL(server.url).host;
  const browser = await chromium.launch({ executablePath, headless: true, args });
  const complaints = [];
  let away = false;

  // open is a page in a context of its own: another visitor.
  async function open(options = {}) {
    const context = await browser.newContext({ viewport: { width: 900, height: 640 }, locale: "en-GB", ...options });
    context.setDefaultTimeout(10_000);
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
    const deadline = Date.now() + 10_000;
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
      await eve.routeWebSocket(/\/rpc$/, (ws) => {
        ws.connectToServer().onMessage((text) => ws.send(text.replace(/("rpc.item","params":{"id":\d+)(,"payload":{[^}]*"text":"late")/, '$1,"dropped":3$2')));
      });
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
        const { connect } = await import("./rpc-client.js");
        for (let i = 0; i < 6; i++) {
          const rpc = connect(new URL("rpc", location.href).href.replace("http", "ws"), { credentials: { name: `guest ${i}` } });
          await rpc.connected();
          for (let n = 0; n < 9; n++) await rpc.call("chat.say", { room: "busy", text: `${i} ${n}` });
          rpc.close();
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
        const began = Date.now();
        const status = await server.stop(signal);
        if (signal === "SIGINT") assert.equal(status, 0);
        assert.ok(Date.now() - began < 2500, `it took ${Date.now() - began} ms`);
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
    await client(await open());
    await test("chat: the console has no errors or warnings", () => assert.deepEqual(complaints, []));
  } catch (error) {
    fail(error.stack);
  } finally {
    await browser.close();
    await server.stop();
  }
}

// client drives web/rpc-client.js alone, against a server that says what the
// real one says seldom.
async function client(page) {
  const frame = (frame) => ({ jsonrpc: "2.0", ...frame });
  const note = (method, params) => frame({ method, params });
  let links = []; // what each link of the client's sent, how it ended, and its socket
  await page.routeWebSocket(/\/rpc$/, (socket) => {
    const link = { socket, sent: [], began: Date.now(), tell: (...frames) => socket.send(JSON.stringify(frames.length === 1 ? frames[0] : frames)) };
    socket.onMessage((text) => link.sent.push(JSON.parse(text)));
    socket.onClose((code) => (link.code = code));
    links.push(link);
  });
  await page.reload();

  const until = async (what, read) => {
    for (const deadline = Date.now() + 5000; ; await new Promise((resolve) => setTimeout(resolve, 5))) {
      const got = read();
      if (got !== undefined) return got;
      assert.ok(Date.now() < deadline, `${what}; the client sent ${JSON.stringify(links.map((l) => l.sent))}`);
    }
  };
  const nth = (n) => until(`link ${n}`, () => links[n]);
  const sent = (link, method, n = 0) => until(method, () => link.sent.filter((m) => m.method === method)[n]);
  const answer = (link, id) => until(`answer ${id}`, () => link.sent.find((m) => m.id === id && !m.method));
  const hello = async (link, more = {}) => {
    const { params } = await sent(link, "rpc.hello");
    link.tell(frame({ id: "rpc.hello", result: { token: `token ${params.attempt}`, resumed: false, reply: "hi", ...more } }));
    return params;
  };
  // run runs what takes longer, and is awaited later.
  const run = (fn) => {
    const result = page.evaluate(fn);
    result.catch(() => {}); // a test that failed before does not await it
    return result;
  };
  // begin connects a new client.
  const begin = async () => {
    links = [];
    await page.evaluate(async () => {
      const { connect } = await import("./rpc-client.js");
      window.rpc?.close();
      window.told = [];
      window.states = [];
      window.ended = ({ code, message, notRun, data }) => JSON.parse(JSON.stringify({ code, message, notRun, data }));
      window.rpc = connect(new URL("rpc", location.href).href.replace("http", "ws"), {
        credentials: async () => ({ name: "test" }),
        methods: {
          double: ([n]) => 2 * n,
          fails: () => { throw Object.assign(new Error("no"), { code: 9, data: [1] }); },
          throws: async ([how]) => {
            throw { text: "just so", nothing: undefined, null: null, number: 7, "string code": Object.assign(new Error("no"), { code: "E_NO" }), bigint: Object.assign(new Error("no"), { code: 9, data: 1n }), endless: Object.assign(new Error("no"), { code: 2 ** 70 }), proxy: new Proxy({}, { get() { throw new Error("never"); } }), symbol: Symbol("s") }[how];
          },
          returns: async ([what]) => ({ bigint: 1n, function: () => 1, symbol: Symbol("s"), loop: (() => { const o = {}; return (o.o = o); })(), nothing: undefined, date: new Date(0), toJSON: { toJSON: () => undefined } })[what],
          hangs: (_, signal) => new Promise((_, reject) => signal.addEventListener("abort", () => (told.push("abort"), reject(new Error("taken back"))))),
          tell: async ([text]) => { await new Promise((resolve) => setTimeout(resolve, 20)); told.push(text); },
        },
        onState: (state, { error, delay }) => states.push([state, error?.code ?? 0, Math.round(delay ?? 0)]),
      });
    });
    return nth(0);
  };
  const open = async () => {
    const link = await begin();
    await hello(link);
    assert.equal(await page.evaluate(() => rpc.connected()), "hi");
    return link;
  };

  await test("client: HELLO first, and ACK after WELCOME", async () => {
    const link = await begin();
    assert.deepEqual(await hello(link), { attempt: 1, credentials: { name: "test" }, features: ["streams"] });
    assert.deepEqual((await sent(link, "rpc.ack")).params, { position: 0 });
    assert.equal(link.sent.length, 2);
  });
  await test("client: what counts, also in an array", async () => {
    const link = await open();
    link.tell(
      note("tell", ["a"]), note("rpc.ping", { position: 0 }), frame({ id: 1, method: "double", params: [21] }),
      note("rpc.ack", { position: 0 }), note("rpc.item", { id: 77, payload: 1 }), note("rpc.later", {}),
    );
    assert.deepEqual((await sent(link, "rpc.ack", 1)).params, { position: 1 });
    assert.deepEqual(await answer(link, 1), { jsonrpc: "2.0", id: 1, result: 42 });
    assert.deepEqual((await sent(link, "rpc.ack", 2)).params, { position: 4 }); // by itself, in a second
    for (let i = 0; i < 64; i++) link.tell(note("rpc.later", {}));
    link.tell(note("rpc.ping", { position: 0 }));
    assert.deepEqual((await sent(link, "rpc.ack", 3)).params, { position: 68 });
    assert.deepEqual((await sent(link, "rpc.ack", 4)).params, { position: 68 });
  });
  await test("client: it answers calls", async () => {
    const link = await open();
    for (const [i, method] of ["fails", "nobody", "hangs"].entries()) link.tell(frame({ id: i + 1, method, params: [] }));
    link.tell(frame({ id: 4, method: "double", params: [1], stream: "server", noItems: true }));
    assert.deepEqual((await answer(link, 1)).error, { code: 9, message: "no", data: [1] });
    for (const id of [2, 4]) {
      assert.equal((await answer(link, id)).error.code, -32601);
      assert.equal((await answer(link, id)).notRun, true);
    }
    link.tell(note("rpc.cancel", { id: 3 }));
    assert.equal((await answer(link, 3)).error.message, "taken back");
  });
  await test("client: it answers whatever a method throws or returns", async () => {
    const link = await open();
    const failed = { code: 13, message: "the method failed" };
    const cases = [
      ["throws", "text", { error: { code: 13, message: "just so" } }], ["throws", "nothing", { error: failed }], ["throws", "null", { error: failed }],
      ["throws", "number", { error: failed }], ["throws", "string code", { error: { code: 13, message: "no" } }], ["throws", "bigint", { error: { code: 9, message: "no" } }],
      ["throws", "endless", { error: { code: 13, message: "no" } }], ["throws", "proxy", { error: failed }], ["throws", "symbol", { error: failed }],
      ["returns", "bigint", "error"], ["returns", "function", "error"], ["returns", "symbol", "error"], ["returns", "loop", "error"], ["returns", "toJSON", "error"],
      ["returns", "nothing", { result: null }], ["returns", "date", { result: "1970-01-01T00:00:00.000Z" }],
    ];
    for (const [i, [method, how, want]] of cases.entries()) {
      link.tell(frame({ id: i + 1, method, params: [how] }));
      const got = await answer(link, i + 1);
      if (want === "error") assert.equal(got.error?.code, 13, how);
      else assert.deepEqual(got, { jsonrpc: "2.0", id: i + 1, ...want }, how);
    }
  });
  await test("client: notifications are handled in order, and credited", async () => {
    const link = await open();
    link.tell(note("tell", ["a"]), note("unknown", []), note("tell", ["b"]));
    for (let i = 0; i < 3; i++) assert.deepEqual((await sent(link, "rpc.credit", i)).params, { items: 1 });
    assert.deepEqual(await page.evaluate(() => told), ["a", "b"]);
  });
  await test("client: notifications stay within the window", async () => {
    const link = await begin();
    await hello(link, { limits: { window: 300 } });
    const notify = () => page.evaluate(() => rpc.connected().then(() => ["x".repeat(500), 1, 1, 1, 1, 1].map((v) => rpc.notify("n", v))));
    assert.deepEqual(await notify(), [true, false, false, false, false, false]); // one always fits
    link.tell(note("rpc.credit", { items: 1 }));
    await until("room", () => link.sent.length === 3 || undefined);
    link.tell(note("rpc.ping", { position: 0 }));
    await sent(link, "rpc.ack", 1);
    assert.deepEqual(await page.evaluate(() => [1, 1, 1, 1, 1].map((v) => rpc.notify("n", v))), [true, true, true, true, false]);
  });
  await test("client: calls end with their answer, an error, a timeout, a signal", async () => {
    const link = await open();
    const calls = run(() => Promise.all([
      rpc.call("m", "text"),
      rpc.call("m", { a: 1 }).catch(ended),
      rpc.call("m", undefined, { timeout: 50 }).catch(ended),
      rpc.call("m", [1, 2], { signal: AbortSignal.timeout(50) }).catch(ended),
    ]));
    const requests = [];
    for (let i = 0; i < 4; i++) requests.push(await sent(link, "m", i));
    assert.deepEqual(requests.map(({ id, params, timeout }) => [id, params, timeout]),
      [[1, ["text"], 15000], [2, { a: 1 }, 15000], [3, undefined, 50], [4, [1, 2], 15000]]);
    link.tell(
      frame({ id: 2, error: { code: -32602, message: "bad", data: { x: 1 } }, notRun: true }),
      frame({ id: 1, result: null }),
    );
    assert.deepEqual(await calls, [
      null,
      { code: 3, message: "bad", notRun: true, data: { x: 1 } },
      { code: 4, message: "no answer to m in 50 ms", notRun: false },
      { code: 1, message: "the call was given up", notRun: false },
    ]);
    const cancelled = [await sent(link, "rpc.cancel"), await sent(link, "rpc.cancel", 1)];
    assert.deepEqual(cancelled.map((m) => m.params.id).sort(), [3, 4]);
  });
  await test("client: streams are credited, and end with all that came before", async () => {
    const link = await open();
    const loop = run(async () => {
      const got = [];
      try {
        for await (const item of rpc.receive("s", "key")) got.push(item);
      } catch (error) {
        got.push(ended(error));
      }
      return got;
    });
    assert.deepEqual(await sent(link, "s"), { jsonrpc: "2.0", id: 1, method: "s", params: ["key"], stream: "server", noItems: true });
    const item = (payload, more) => note("rpc.item", { id: 1, payload, ...more });
    link.tell(item("a", { history: true }), item("b", { dropped: 2 }), item("c"));
    const credited = () => link.sent.filter((m) => m.method === "rpc.credit");
    await until("credit", () => credited().reduce((n, m) => n + m.params.items, 0) === 3 || undefined);
    for (const { params } of credited()) assert.deepEqual([params.id, params.caller], [1, true]);
    link.tell(item("d"), frame({ id: 1, error: { code: 8, message: "too slow" } }));
    assert.deepEqual(await loop, [
      { value: "a", history: true, dropped: 0 }, { value: "b", history: false, dropped: 2 },
      { value: "c", history: false, dropped: 0 }, { value: "d", history: false, dropped: 0 },
      { code: 8, message: "too slow", notRun: false },
    ]);
  });
  await test("client: a loop that is left is cancelled", async () => {
    const link = await open();
    const loop = run(async () => { for await (const { value } of rpc.receive("s")) return value; });
    await sent(link, "s");
    link.tell(note("rpc.item", { id: 1, payload: 1 }), note("rpc.item", { id: 1, payload: 2 }));
    assert.equal(await loop, 1);
    assert.deepEqual((await sent(link, "rpc.cancel")).params, { id: 1 });
  });
  await test("client: told to go, it finishes, goes, and comes back in the window", async () => {
    const link = await open();
    const call = run(() => rpc.call("m"));
    await sent(link, "m");
    link.tell(note("rpc.goaway", { min: 200, max: 300 }));
    link.tell(note("rpc.ping", { position: 0 }));
    await sent(link, "rpc.ack", 1);
    assert.deepEqual(await page.evaluate(() => rpc.call("n").catch(ended)), { code: 14, message: "not connected", notRun: true });
    assert.equal(link.code, undefined);
    const then = Date.now();
    link.tell(frame({ id: 1, result: "done" }));
    assert.equal(await call, "done");
    assert.equal(await until("close", () => link.code), 1000);
    const next = await nth(1);
    assert.ok(next.began - then >= 190, `it came back after ${next.began - then} ms`);
    assert.deepEqual(await hello(next), { attempt: 2, token: "token 1", credentials: { name: "test" }, features: ["streams"] });
    assert.equal(await page.evaluate(() => rpc.connected()), "hi");
  });
  await test("client: what is in flight ends with the link", async () => {
    const link = await open();
    const ends = run(() => Promise.all([rpc.call("m").catch(ended), rpc.receive("s").next().catch(ended)]));
    await sent(link, "s");
    link.socket.close({ code: 1012 });
    for (const end of await ends) assert.deepEqual(end, { code: 14, message: "the connection was lost before the answer came", notRun: false });
    await hello(await nth(1));
    assert.equal(await page.evaluate(() => rpc.connected()), "hi");
  });
  await test("client: when to come back, and when not", async () => {
    let link = await begin();
    await sent(link, "rpc.hello");
    link.tell(frame({ id: "rpc.auth", result: { error: { code: 14, message: "later", retryAfter: 400 } } }));
    link.socket.close({ code: 1013 });
    const closed = Date.now();
    link = await nth(1);
    assert.ok(link.began - closed >= 390, `it came back after ${link.began - closed} ms`);
    await sent(link, "rpc.hello");
    link.tell(frame({ id: "rpc.auth", result: { error: { code: 7, message: "not you", data: 5 } } }));
    link.socket.close({ code: 4403 });
    const refused = { code: 7, message: "not you", notRun: true, data: 5 };
    assert.deepEqual(await page.evaluate(() => rpc.connected().catch(ended)), refused);
    assert.deepEqual(await page.evaluate(() => rpc.call("m").catch(ended)), refused);
    assert.equal(await page.evaluate(() => states.at(-1)[0]), "refused");

    link = await open();
    link.socket.close({ code: 4401 }); // the session's credentials have ended: others may do
    await hello(await nth(1));
    await page.evaluate(() => rpc.connected());
    links[1].socket.send("{");
    assert.equal(await until("close", () => links[1].code), 4400);
    await page.waitForFunction(() => states.at(-1)[0] === "refused");
    assert.equal(links.length, 2);
  });
  await page.context().close();
}
