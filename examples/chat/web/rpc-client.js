// A client of typedrpc for web pages: one WebSocket in the JSON-RPC dialect with
// HELLO (PROTOCOL.md section 7.2), without dependencies. Copy it.
//
//   const rpc = connect("wss://host/rpc", {
//     credentials: { name: "ada" },      // or a function, asked before each attempt
//     methods: { "page.confirm": async (params, signal) => true }, // for the server
//     onState: (state, about) => …,      // see below
//   });
//   const reply = await rpc.connected(); // the server's answer to the credentials
//   const id = await rpc.call("chat.say", { room, text }, { timeout: 5000, signal });
//   rpc.notify("chat.type", room);       // false if it cannot leave now
//   for await (const { value, history, dropped } of rpc.receive("chat.room", room, { signal })) …
//   rpc.reconnect();                     // now, and not after the wait
//   rpc.close();
//
// All errors are RPCErrors. The connection comes back by itself; calls and
// streams do not, they end with UNAVAILABLE. Streams from the page to the
// server, and what PROTOCOL.md calls fragments and resume, are not in here.
//
// onState is told of:
//
//   "connecting"
//   "connected"  about.reply: the answer to the credentials
//   "waiting"    about.error: why; about.delay: ms until the next attempt
//   "refused"    about.error: why it is of no use to try again
//   "closed"     by rpc.close()

// Codes of errors: gRPC's numbers, of which these are used here.
export const CANCELED = 1;
export const INVALID_ARGUMENT = 3;
export const DEADLINE_EXCEEDED = 4;
export const PERMISSION_DENIED = 7;
export const RESOURCE_EXHAUSTED = 8;
export const UNIMPLEMENTED = 12;
export const INTERNAL = 13;
export const UNAVAILABLE = 14;
export const UNAUTHENTICATED = 16;

// JSON-RPC has numbers of its own for these.
const ownCodes = new Map([
  [-32700, INVALID_ARGUMENT], [-32600, INVALID_ARGUMENT], [-32602, INVALID_ARGUMENT],
  [-32601, UNIMPLEMENTED], [-32603, INTERNAL],
]);

export class RPCError extends Error {
  // notRun: no handler has seen the call, making it again is safe.
  constructor({ code, message, data, retryAfter = 0, notRun = false, cause }) {
    super(message, { cause });
    this.name = "RPCError";
    this.code = ownCodes.get(code) ?? code;
    this.data = data;
    this.retryAfter = retryAfter; // ms
    this.notRun = notRun;
  }
}

const notConnected = (message = "not connected") => new RPCError({ code: UNAVAILABLE, message, notRun: true });

// Reconnection: a random part of a wait that doubles, so that the pages of a
// restarted server do not all come at once.
const FIRST_WAIT = 250;
const LONGEST_WAIT = 15_000;
const STABLE = 10_000; // a link of this age was a good one: waits begin anew

const HANDSHAKE_TIMEOUT = 10_000;
const CALL_TIMEOUT = 15_000;

// What both sides assume where HELLO and WELCOME say nothing.
const WINDOW = 64 << 10;
const OVERHEAD = 64; // what each item and notification counts beside its bytes

export function connect(url, { credentials, methods = {}, onState = () => {} } = {}) {
  const table = new Map(Object.entries(methods));
  let link = null; // the open one
  let dialing = null; // one of which nobody knows yet whether it opens
  let timer;
  let attempt = 0;
  let token; // of the latest session: the server ends that one for good
  let failures = 0;
  let over = null; // an error: there will be no further link
  let ready = promised();
  // In a step of its own, so that an error of the page's is not one of ours.
  const tell = (state, about) => queueMicrotask(() => onState(state, about));

  function open() {
    clearTimeout(timer);
    tell("connecting", {});
    let opened = 0;
    const dialed = (dialing = new Link(url, {
      methods: table,
      hello: async () => ({
        attempt: ++attempt,
        token,
        credentials: typeof credentials === "function" ? await credentials() : credentials,
        features: ["streams"],
      }),
      opened(welcome) {
        opened = Date.now();
        token = welcome.token;
        dialing = null;
        link = dialed;
        tell("connected", { reply: welcome.reply });
        ready.resolve(welcome.reply);
      },
      leaving() {
        if (link !== dialed) return;
        link = null;
        ready = promised();
      },
      closed({ code, error, window }) {
        if (dialing === dialed) dialing = null;
        if (over || link || dialing) return; // it was one of before
        if (code === 4400 || code === 4403 || (code === 4401 && !opened)) return end("refused", error);
        if (opened && Date.now() - opened > STABLE) failures = 0;
        let delay = Math.random() * Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures++);
        if (code === 4429) delay = LONGEST_WAIT * (0.5 + Math.random() / 2); // the server has had enough of us
        else if (window && code !== 4401) delay = (window.min ?? 0) + Math.random() * ((window.max ?? 0) - (window.min ?? 0));
        delay = Math.max(delay, error.retryAfter);
        tell("waiting", { error, delay });
        timer = setTimeout(open, delay);
      },
    }));
  }

  function end(state, error) {
    over = error;
    clearTimeout(timer);
    removeEventListener("online", reconnect);
    ready.reject(error);
    tell(state, { error });
  }

  function reconnect() {
    if (!over && !link && !dialing) open();
  }

  const current = () => {
    if (link) return link;
    throw over ?? notConnected();
  };

  addEventListener("online", reconnect);
  open();
  return {
    // connected resolves with the server's reply once there is a link.
    connected: () => ready.promise,
    reconnect,
    call: (method, params, { timeout = CALL_TIMEOUT, signal } = {}) =>
      new Promise((resolve, reject) => {
        current().begin({ method, params, timeout }, signal, (error, result) => (error ? reject(error) : resolve(result)));
      }),
    notify: (method, params) => link?.notify(method, params) ?? false,
    // receive is a server stream. Each loop over it is a stream of its own, and
    // leaving the loop ends it; signal ends it also while nothing comes.
    async *receive(method, params, { signal } = {}) {
      const stream = new Incoming(current(), { method, params, stream: "server", noItems: true }, signal);
      try {
        for (;;) {
          const item = await stream.next();
          if (!item) return;
          yield item;
        }
      } finally {
        stream.leave();
      }
    },
    close() {
      if (over) return;
      const was = link ?? dialing;
      link = dialing = null;
      end("closed", new RPCError({ code: CANCELED, message: "the connection was closed", notRun: true }));
      was?.close(1000, "");
    },
  };
}

// promised is a promise with its ends outside.
function promised() {
  const p = {};
  p.promise = new Promise((resolve, reject) => Object.assign(p, { resolve, reject }));
  p.promise.catch(() => {}); // it may be that nobody asks
  return p;
}

// Link is one WebSocket, from HELLO to its end. What is in flight ends with it.
class Link {
  constructor(url, { methods, hello, opened, leaving, closed }) {
    this.on = { opened, leaving, closed };
    this.methods = methods;
    this.limits = {};
    this.calls = new Map(); // ours: id -> { size, finish, giveUp, stream }
    this.callBytes = 0;
    this.serving = new Map(); // the server's: id -> AbortController
    this.lastID = 0;
    this.lane = Promise.resolve(); // notifications run one after another
    this.sent = []; // sizes of our notifications that are not credited
    this.sentBytes = 0;
    this.received = 0; // frames that count, section 2.3
    this.unacked = 0; // … of which the server was not told
    this.unackedBytes = 0;
    this.heard = Date.now();
    this.error = null; // why the link ended

    this.handshake = setTimeout(() => this.close(4408, "the server does not answer"), HANDSHAKE_TIMEOUT);
    this.ws = new WebSocket(url, "typedrpc.jsonrpc");
    this.ws.onopen = async () => {
      try {
        this.send({ id: "rpc.hello", method: "rpc.hello", params: await hello() });
      } catch (cause) {
        this.close(1000, "there are no credentials", cause);
      }
    };
    this.ws.onmessage = (event) => this.read(event.data);
    this.ws.onclose = (event) => this.ended(event.code, event.reason);
  }

  isOpen() {
    return this.code === undefined && this.ws.readyState === WebSocket.OPEN;
  }

  send(frame) {
    if (this.isOpen()) this.ws.send(JSON.stringify({ jsonrpc: "2.0", ...frame }));
  }

  close(code, message, cause) {
    this.error ??= new RPCError({ code: UNAVAILABLE, message, cause });
    this.code ??= code;
    this.ws.close(code, message);
    this.on.leaving();
    // With a dead network the browser would wait for the other side's goodbye.
    setTimeout(() => this.ended(code, message), 1000);
  }

  ended(code, reason) {
    if (this.dead) return;
    this.dead = true;
    this.ws.onmessage = this.ws.onclose = null;
    clearTimeout(this.handshake);
    clearTimeout(this.ackTimer);
    clearInterval(this.keepalive);
    const error = (this.error ??= new RPCError({ code: UNAVAILABLE, message: reason || (this.keepalive ? "the connection was lost" : "the server cannot be reached") }));
    this.on.leaving();
    for (const { finish } of [...this.calls.values()]) {
      finish(new RPCError({ code: UNAVAILABLE, message: "the connection was lost before the answer came", cause: error }));
    }
    for (const controller of this.serving.values()) controller.abort(error);
    this.on.closed({ code: this.code ?? code, error, window: this.window });
  }

  // read takes a message: one frame, or an array of them.
  read(text) {
    if (this.code !== undefined) return; // we are closing
    this.heard = Date.now();
    try {
      const message = JSON.parse(text);
      const frames = Array.isArray(message) ? message : [message];
      for (const frame of frames) this.take(frame, text.length / frames.length);
    } catch (cause) {
      return this.close(4400, "cannot read the message", cause);
    }
    if (this.unacked >= 64 || this.unackedBytes >= WINDOW) this.ack();
    else if (this.unacked > 0) this.ackTimer ??= setTimeout(() => this.ack(), 900);
  }

  take(frame, size) {
    // These do not count as received.
    if (frame.id === "rpc.hello") return this.welcome(frame.result);
    if (frame.id === "rpc.auth") return this.refused(frame.result.error);
    switch (frame.method) {
      case "rpc.ping": return this.ack();
      case "rpc.ack": return;
      case "rpc.goaway": return this.goAway(frame.params);
    }
    // All others do, also those that are unknown.
    this.received++;
    this.unacked++;
    this.unackedBytes += size;
    const { params } = frame;
    switch (frame.method) {
      case undefined: return this.settle(frame);
      case "rpc.item": return this.calls.get(params.id)?.stream?.push(params, size);
      case "rpc.credit": return this.credited(params);
      case "rpc.cancel": return this.serving.get(params.id)?.abort();
    }
    if (frame.id !== undefined) this.serve(frame);
    else if (!frame.method.startsWith("rpc.")) this.notified(frame);
  }

  ack() {
    clearTimeout(this.ackTimer);
    this.ackTimer = undefined;
    this.unacked = this.unackedBytes = 0;
    this.send({ method: "rpc.ack", params: { position: this.received } });
  }

  welcome(welcome) {
    clearTimeout(this.handshake);
    this.limits = welcome.limits ?? {};
    this.ack();
    const interval = Math.max(1000, Math.min(welcome.keepalive || 20_000, 20_000));
    // By the clock and not by ticks, which a page in the background gets late.
    this.keepalive = setInterval(() => {
      const silence = Date.now() - this.heard;
      if (silence >= 2 * interval) this.close(4408, "the server fell silent");
      else if (silence >= interval) this.send({ method: "rpc.ping", params: { position: this.received } });
    }, interval / 4);
    this.on.opened(welcome);
  }

  // refused notes why HELLO was; the close code, which says whether to come
  // again, follows.
  refused(error) {
    this.error = new RPCError({ ...error, notRun: true });
  }

  // goAway: begin nothing new, finish what is there, and come again later.
  goAway(window) {
    this.window = window;
    this.on.leaving();
    this.checkIdle();
  }

  checkIdle() {
    if (this.window && this.calls.size === 0 && this.serving.size === 0) this.close(1000, "the server is going away");
  }

  // begin makes a call, and calls finish(error, result) once, when it ends.
  begin({ method, params, timeout, ...more }, signal, finish) {
    if (!this.isOpen()) throw notConnected();
    if (signal?.aborted) throw aborted(signal, true);
    if (this.calls.size >= (this.limits.calls ?? 1024)) {
      throw new RPCError({ code: RESOURCE_EXHAUSTED, message: "too many calls at once", notRun: true });
    }
    const [encoded, size] = encode(params, this.limits);
    if (this.calls.size > 0 && this.callBytes + size > (this.limits.budget ?? 8 << 20)) {
      throw new RPCError({ code: RESOURCE_EXHAUSTED, message: "too much in flight at once", notRun: true });
    }
    const frame = { method, ...encoded, timeout: timeout && Math.ceil(timeout), ...more };
    const id = ++this.lastID;
    const call = {
      size,
      finish: (error, result) => {
        call.finish = () => {};
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        finish(error, result);
      },
      // The call stays in the table until the server has answered: it counts
      // among its calls for as long.
      giveUp: (error) => {
        if (!this.calls.has(id)) return;
        this.send({ method: "rpc.cancel", params: { id } });
        call.finish(error);
      },
    };
    const abort = () => call.giveUp(aborted(signal));
    signal?.addEventListener("abort", abort);
    const timer = timeout && setTimeout(() => {
      call.giveUp(new RPCError({ code: DEADLINE_EXCEEDED, message: `no answer to ${method} in ${timeout} ms` }));
    }, timeout);
    this.calls.set(id, call);
    this.callBytes += size;
    this.send({ id, ...frame });
    return [id, call];
  }

  // settle ends one of our calls with its answer.
  settle({ id, result, error, notRun }) {
    const call = this.calls.get(id);
    if (!call) return;
    this.calls.delete(id);
    this.callBytes -= call.size;
    call.finish(error && new RPCError({ ...error, notRun }), result);
    this.checkIdle();
  }

  // serve answers a call of the server.
  async serve({ id, method, params, stream }) {
    const controller = new AbortController();
    this.serving.set(id, controller);
    const answer = { id };
    try {
      const fn = stream ? undefined : this.methods.get(method);
      if (fn) answer.result = sendable(await fn(params, controller.signal));
      else Object.assign(answer, { notRun: true, error: { code: -32601, message: `this page has no method "${method}"` } });
    } catch (error) {
      answer.error = said(error);
    }
    this.serving.delete(id);
    this.send(answer);
    this.checkIdle();
  }

  // notified runs a notification's handler, and then lets the server send more.
  notified({ method, params }) {
    this.lane = this.lane.then(async () => {
      try {
        await this.methods.get(method)?.(params);
      } catch (error) {
        console.error(`${method}:`, error);
      }
      this.send({ method: "rpc.credit", params: { items: 1 } });
    });
  }

  // notify sends a notification, unless too many are on their way already.
  notify(method, params) {
    if (!this.isOpen()) return false;
    const [encoded, size] = encode(params, this.limits);
    if (this.sent.length > 0 && this.sentBytes + size > (this.limits.window ?? WINDOW)) return false;
    this.sent.push(size);
    this.sentBytes += size;
    this.send({ method, ...encoded });
    return true;
  }

  // credited: notifications were handled. Credit of streams is for what pages
  // send, which these do not.
  credited({ id, items, window }) {
    if (id) return;
    for (const size of this.sent.splice(0, items)) this.sentBytes -= size;
    if (window) this.limits = { ...this.limits, window };
  }
}

// Incoming is a server stream. Its items wait here until the loop takes them, and
// the server sends more only then: a page that is slow is not buried.
class Incoming {
  constructor(link, request, signal) {
    this.link = link;
    this.items = [];
    this.taken = 0; // items that are not credited …
    this.takenBytes = 0; // … and about their bytes
    this.wake = () => {};
    [this.id, this.call] = link.begin(request, signal, (error) => {
      this.over = true;
      this.error = error;
      this.wake();
    });
    this.call.stream = this;
  }

  push({ payload = null, history = false, dropped = 0 }, size) {
    if (this.over) return;
    this.items.push({ item: { value: payload, history, dropped }, size: size + OVERHEAD });
    this.wake();
  }

  // next resolves with the next item, or with nothing at the end.
  async next() {
    // A loop that was cancelled is over at once. In all other cases what had
    // come before the end is still received.
    while (this.items.length === 0 && !this.over) await new Promise((resolve) => (this.wake = resolve));
    if (this.items.length > 0 && this.error?.code !== CANCELED) return this.pull();
    if (this.error) throw this.error;
  }

  pull() {
    const { item, size } = this.items.shift();
    this.taken++;
    this.takenBytes += size;
    // Credit is due when half of the window was used or nothing more waits.
    if (!this.over && (this.takenBytes >= WINDOW / 2 || this.items.length === 0)) {
      this.link.send({ method: "rpc.credit", params: { id: this.id, items: this.taken, caller: true } });
      this.taken = this.takenBytes = 0;
    }
    return item;
  }

  leave() {
    if (!this.over) this.call.giveUp(new RPCError({ code: CANCELED, message: "the loop was left" }));
  }
}

// said is what the server is told of what a method threw, which may be anything.
function said(thrown) {
  let answer = { code: INTERNAL, message: "the method failed" };
  try {
    const { code, message, data } = Object(thrown);
    const text = String(message ?? (typeof thrown === "string" ? thrown : answer.message));
    answer = { code: Number.isSafeInteger(code) ? code : answer.code, message: text };
    return JSON.parse(JSON.stringify({ ...answer, data }));
  } catch {
    return answer; // what cannot be written is left out
  }
}

// sendable is a result as JSON has it; it throws for one that JSON does not have.
function sendable(result) {
  const text = JSON.stringify(result ?? null);
  if (text === undefined) throw new TypeError(`a ${typeof result} cannot be sent`);
  return JSON.parse(text);
}

function aborted(signal, notRun = false) {
  return new RPCError({ code: CANCELED, message: "the call was given up", notRun, cause: signal.reason });
}

const encoder = new TextEncoder();

// encode makes params what JSON-RPC allows, an object, an array or nothing, and
// says what they count against the server's limits.
function encode(params, limits) {
  if (params === undefined || params === null) return [{}, OVERHEAD];
  if (typeof params !== "object") params = [params];
  const size = encoder.encode(JSON.stringify(params)).length;
  const most = limits.message ?? 4 << 20;
  if (size > most) {
    throw new RPCError({ code: RESOURCE_EXHAUSTED, message: `the message has ${size} bytes, the server takes ${most}`, notRun: true });
  }
  return [{ params }, size + OVERHEAD];
}
