// What a program does with the built client, in whatever host runs it: it knows nothing but that file and what hosts
// have of the web. Its arguments are the address of a Go server behind a proxy, and of what controls both. It says what
// it has done, a line for each, and must end by itself then.
import {
  Code,
  RpcError,
  bidiStream,
  call,
  clientStream,
  connect,
  download,
  downloadOf,
  fragments,
  handle,
  handleBidiStream,
  handleClientStream,
  handleNotification,
  handleServerStream,
  method,
  notification,
  notify,
  open,
  receive,
  sendAll,
  serve,
  serverStream,
  signIn,
  subscribe,
  topic,
  upload,
  uploadOf,
} from "../../dist/typedrpc.js";

const [server, control] = process.argv.slice(2);

// What internal/e2e/jsserver declares.
const multiply = method("math.multiply", { idempotent: true });
const echo = method("echo");
const wait = method("wait");
const run = method("run");
const sell = method("sell");
const missing = method("missing");
const note = notification("note");
const notes = method("notes");
const news = notification("news");
const push = method("push");
const back = method("back");
const greet = method("page.greet");
const numbers = serverStream("numbers");
const endless = serverStream("endless");
const left = method("left");
const sum = clientStream("sum");
const doubles = bidiStream("doubles");
const drive = method("drive");
const room = topic("room", { restartable: true });
const publish = method("publish");
const put = uploadOf("files.put");
const get = downloadOf("files.get");

// A timer that is not stopped keeps a program alive for longer than its test waits.
const hour = 3_600_000;
const dial = (path = "/", options = {}) => connect(server + path, { fragments, limits: { keepAlive: hour, handshake: hour }, ...options });
/** Has the proxy, or the server behind it, do something: as the program's own process has no way to. */
const tell = async (command) => (await fetch(`${control}/${command}`)).text();
const upTo = (n) => Array.from({ length: n }, (_, i) => i);

function equal(got, want) {
  const [a, b] = [got, want].map((value) => JSON.stringify(value));
  if (a !== b) throw new Error(`${a?.slice(0, 1000)} is not ${b?.slice(0, 1000)}`);
}
async function failure(promise) {
  const error = await promise.then(
    () => undefined,
    (error) => error,
  );
  if (error instanceof RpcError) return error;
  throw error ?? new Error("it did not fail");
}
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
async function until(what) {
  while (!(await what())) await sleep(5);
}
async function all(items) {
  const list = [];
  for await (const item of items) list.push(item);
  return list;
}
/** Items that come a few at a time, so that links are cut between them. */
async function* slowly(n) {
  for (let i = 0; i < n; i++) {
    if (i % 20 === 0) await sleep(1);
    yield i;
  }
}

const conn = dial("/", { backoff: { max: 20 } });
const told = [];
const greeted = new Map();
serve(
  conn,
  handleNotification(news, (text) => void told.push(Number.parseInt(text, 10))),
  handle(greet, (name) => {
    greeted.set(name, (greeted.get(name) ?? 0) + 1);
    return `hello ${name}`;
  }),
  handleServerStream(serverStream("page.feed"), upTo),
  handleClientStream(clientStream("page.sum"), async (_, items) => (await all(items)).reduce((total, n) => total + n, 0)),
  handleBidiStream(bidiStream("page.chat"), async (_, stream) => {
    for await (const item of stream) await stream.send(item);
  }),
);

const steps = {
  async calls() {
    equal(await call(conn, multiply, { A: 6, B: 7 }), 42);
    equal(await Promise.all(upTo(1_000).map((n) => call(conn, multiply, { A: n, B: 2 }))), upTo(1_000).map((n) => 2 * n));
    const text = "häuser 🙂 ".repeat(100_000);
    equal(await call(conn, echo, text), text);
    let reply;
    equal(await call(conn, method("headers"), "", { metadata: { a: "1" }, onReply: (metadata) => (reply = { ...metadata }) }), { a: "1" });
    equal(reply, { answer: "42" });
  },
  async "typed errors"() {
    const sold = await failure(call(conn, sell, 3));
    equal([sold.code, sold.fault, sold.data, sold.outcome], [Code.FailedPrecondition, "shop.no-stock", { left: 3 }, "answered"]);
    const none = await failure(call(conn, missing, null));
    equal([none.code, none.outcome], [Code.Unimplemented, "notSent"]);
    const late = await failure(call(conn, wait, hour, { timeout: 50 }));
    equal(late.code, Code.DeadlineExceeded);
    const given = await failure(call(conn, wait, hour, { signal: AbortSignal.timeout(50) }));
    equal(given.code, Code.DeadlineExceeded);
  },
  async "notifications both ways"() {
    for (const n of upTo(2_000)) await notify(conn, note, n);
    await until(async () => (await call(conn, notes, "")).count >= 2_000);
    equal(await call(conn, notes, ""), { count: 2_000, wrong: [] });
    equal(await call(conn, push, { N: 2_000 }), 2_000);
    await until(() => told.length >= 2_000);
    equal(told, upTo(2_000));
  },
  async "the server's calls"() {
    equal(await call(conn, back, "ada"), "hello ada");
    equal(await call(conn, drive, { N: 1_000, Text: "feed" }), "{1000 []}");
    equal(await call(conn, drive, { N: 1_000, Text: "sum" }), "499500");
    equal(await call(conn, drive, { N: 1_000, Text: "chat" }), "{1000 []}");
  },
  async streams() {
    equal(await all(receive(conn, numbers, { From: 0, To: 5_000 })), upTo(5_000));
    equal(await sendAll(conn, sum, "ordered", upTo(5_000)), 12_497_500);
    const stream = open(conn, doubles, "");
    const sent = (async () => {
      for (const n of upTo(2_000)) await stream.send(n);
      stream.end();
    })();
    equal(await all(stream), upTo(2_000).map((n) => 2 * n));
    await sent;
    for await (const n of receive(conn, endless, "program")) if (n === 500) break;
    await until(async () => (await call(conn, left, "program")) > 0);
    const gone = await failure(all(receive(conn, numbers, { From: 2, To: 0 })));
    equal([gone.fault, gone.data, gone.gap], ["shop.no-stock", { left: 2 }, false]);
  },
  async "a topic"() {
    const Key = crypto.randomUUID();
    await call(conn, publish, { Key, Text: "before" });
    const events = [];
    for await (const { value, missed, history } of subscribe(conn, room, Key)) {
      if (events.push([value, missed, history]) === 2) break;
      await call(conn, publish, { Key, Text: "now" });
    }
    equal(events, [
      ["before", 0, true],
      ["now", 0, false],
    ]);
  },
  async "an upload and a download"() {
    const data = Uint8Array.from({ length: 700_000 }, (_, i) => i * 7);
    const digest = async (bytes) => Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const sum = await digest(data);
    for (const source of [data, new File([data], "f"), new Blob([data]).stream()]) {
      let last;
      equal(await upload(conn, put, "f", source, { progress: (done) => (last = done) }), { name: "f", size: data.length, sum });
      equal(last, data.length);
    }
    const text = "All work and no play makes Jack a dull boy. ".repeat(20_000);
    const file = await download(conn, get, { Name: "jack" }); // which has compared the sums when it ends
    equal(await new Response(file.stream()).text(), text);
    const prefix = new TextEncoder().encode(text.slice(0, 500_001));
    equal((await (await download(conn, get, { Name: "jack", Offset: 500_001 }, { prefix })).blob()).size, text.length - 500_001);
    equal((await failure(download(conn, get, { Name: "joe" }))).code, Code.NotFound);
  },
  async "links that are cut"() {
    const size = 1_000;
    const links = [];
    const stop = conn.onState(({ state, resumed }) => void (state === "connected" && links.push(resumed)));
    await until(() => links.length);
    const already = told.length;
    const before = (await call(conn, notes, "")).count;
    let done = false;
    const cutting = (async () => {
      for (let cuts = 0; !done || cuts < 5; cuts++) {
        const { length } = links;
        await call(conn, multiply, { A: 1, B: 1 }); // each link gets something through, in however long that takes here
        await sleep(20 * Math.random());
        await tell("cut");
        await until(() => links.length > length);
      }
    })();
    const together = async (each) => {
      await Promise.all(upTo(16).map(async (worker) => {
        for (let i = worker; i < size; i += 16) await each(i);
      }));
    };
    const key = crypto.randomUUID();
    const work = [
      together(async (i) => equal(await call(conn, run, `${key} ${i}`), 1)),
      together(async (i) => equal(await call(conn, back, `cut ${i}`), `hello cut ${i}`)),
      (async () => {
        for (let i = 0; i < size; i++) await notify(conn, note, before + i);
      })(),
      call(conn, push, { N: size }),
      all(receive(conn, numbers, { From: 0, To: size })).then((items) => equal(items, upTo(size))),
      sendAll(conn, sum, "ordered", slowly(size)).then((total) => equal(total, (size * (size - 1)) / 2)),
      (async () => {
        const stream = open(conn, doubles, "");
        const sent = (async () => {
          for await (const n of slowly(size)) await stream.send(n);
          stream.end();
        })();
        equal(await all(stream), upTo(size).map((n) => 2 * n));
        await sent;
      })(),
      (async () => equal((await (await download(conn, get, { Name: "jack" })).bytes()).length, 880_000))(),
    ];
    await Promise.all(work);
    done = true;
    await cutting;
    stop();
    await until(async () => (await call(conn, notes, "")).count >= before + size);
    equal(await call(conn, notes, ""), { count: before + size, wrong: [] });
    await until(() => told.length >= already + size);
    equal(told.slice(already), upTo(size));
    equal(upTo(size).filter((i) => greeted.get(`cut ${i}`) !== 1), []);
    equal(links.slice(1).filter((resumed) => !resumed), []); // the session went on, each time
    if (links.length < 6) throw new Error(`${links.length} links`);
  },
  async "a server that is away"() {
    const mine = dial("/", { backoff: { max: 20 } });
    equal(await call(mine, multiply, { A: 2, B: 3 }), 6);
    await tell("down");
    await until(() => mine.state.state === "waiting");
    const held = call(mine, multiply, { A: 3, B: 3 });
    const error = await failure(call(mine, multiply, { A: 1, B: 1 }, { withoutLink: "fail" }));
    equal([error.code, error.outcome], [Code.Unavailable, "notSent"]);
    if (!/^no connection for \d+ ms: the connection ended \(1006\)/.test(error.message)) throw error;
    await tell("up");
    equal(await held, 9);
    await mine.close();
  },
  async "a peer that has fallen silent"() {
    const mine = dial("/", { limits: { keepAlive: 500 } });
    const links = [];
    mine.onState(({ state, resumed, error }) => void (state === "connected" ? links.push(resumed) : error && links.push(error.cause?.code)));
    equal(await call(mine, multiply, { A: 2, B: 3 }), 6);
    await tell("silent");
    const held = call(mine, run, crypto.randomUUID());
    await until(() => links.length > 1);
    await tell("heard");
    equal(await held, 1);
    equal(links.slice(0, 2), [false, 4408]);
    await until(() => links.at(-1) === true);
    await mine.close();
  },
  async credentials() {
    let asked = 0;
    const who = signIn(() => ({ user: "ada", life: asked++ ? 0 : 3_000 }));
    const guarded = dial("/guarded", { signIn: who });
    equal(await call(guarded, multiply, { A: 6, B: 7 }), 42);
    equal(who.reply, { greeting: "hello ada" });
    await who.refresh();
    equal(asked, 2);
    await guarded.close();
    for (const [user, code] of [
      ["eve", Code.PermissionDenied],
      ["", Code.FailedPrecondition],
    ]) {
      const refused = dial("/guarded", { signIn: signIn(() => ({ user })) });
      const error = await failure(call(refused, multiply, { A: 1, B: 1 }));
      equal([error.code, error.outcome], [code, "notSent"]);
      await refused.done;
      equal(refused.state.state, "closed");
    }
    const banned = dial("/guarded", { signIn: signIn(() => ({ user: "ada" })) });
    equal(await call(banned, multiply, { A: 6, B: 7 }), 42);
    equal(await tell("server/ban"), "banned");
    await banned.done;
    equal([banned.state.error.code, banned.state.error.data], [Code.FailedPrecondition, { left: 7 }]);
  },
  async "addresses that answer nobody"() {
    const nobody = connect(`${control}/nobody`, { backoff: { min: hour, max: hour, factor: 1 } }); // 404, which a page is not told
    await until(() => nobody.state.state === "waiting");
    equal(nobody.state.error.code, Code.Unavailable);
    const held = failure(call(nobody, multiply, { A: 1, B: 1 }));
    await nobody.close();
    equal((await held).outcome, "notSent");
    const hasty = dial();
    const left = failure(call(hasty, multiply, { A: 1, B: 1 }));
    await hasty.close(); // before its socket is open
    equal([(await left).outcome, hasty.state.state], ["notSent", "closed"]);
  },
  async "a worker"() {
    const code = `
      import { call, connect, method } from ${JSON.stringify(new URL("../../dist/typedrpc.js", import.meta.url).href)};
      const conn = connect(${JSON.stringify(server)});
      const answer = await call(conn, method("math.multiply"), { A: 6, B: 7 });
      await conn.close();
      postMessage(answer);`;
    const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })), { type: "module" });
    const answer = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
    worker.terminate();
    equal(answer, 42);
  },
  async close() {
    const slow = failure(call(conn, wait, hour));
    await call(conn, multiply, { A: 1, B: 1 });
    for (const n of upTo(100)) await notify(conn, note, n); // which still leave
    await conn.close();
    await conn.close();
    await conn.done;
    equal([conn.state.state, conn.state.error.code], ["closed", Code.Unavailable]);
    equal([(await slow).code, (await slow).outcome], [Code.Unavailable, "mayHaveRun"]);
    equal((await failure(call(conn, multiply, { A: 1, B: 1 }))).outcome, "notSent");
  },
};

if (!globalThis.Worker) delete steps["a worker"]; // Node has others, which its own test starts

for (const [name, step] of Object.entries(steps)) {
  await step();
  console.log(name);
}
