// A JSON-RPC 2.0 client for one WebSocket: both sides call, both sides answer.
//
//   const rpc = connect("ws://host/rpc", {
//     methods: { "page.confirm": async (params, signal) => true },
//     onState: (state) => …,            // "connecting", "connected", "waiting"
//   });
//   const root = await rpc.call("squareRoot", 9);   // throws an RPCError

export class RPCError extends Error {
  constructor({ code, message, data }) {
    super(message);
    this.name = "RPCError";
    this.code = code;
    this.data = data;
  }
}

const METHOD_NOT_FOUND = -32601;
const INTERNAL_ERROR = -32603;
const UNAVAILABLE = 14; // typedrpc's code for "no connection"

export function connect(url, { methods = {}, onState = () => {} } = {}) {
  const table = new Map(Object.entries(methods));
  const pending = new Map(); // our calls: id -> { resolve, reject }
  let socket;
  let lastID = 0;
  let failures = 0;

  function open() {
    const ws = (socket = new WebSocket(url));
    const running = new Map(); // the server's calls: id -> AbortController
    onState("connecting");

    ws.onopen = () => {
      failures = 0;
      onState("connected");
    };
    ws.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.method === undefined) settle(message);
      else if (message.id === undefined) notified(running, message);
      else serve(ws, running, message);
    };
    ws.onclose = () => {
      for (const { reject } of pending.values()) {
        // The call may have run or not; only the caller can know what to do.
        reject(new RPCError({ code: UNAVAILABLE, message: "the connection was lost before the answer came" }));
      }
      pending.clear();
      for (const controller of running.values()) controller.abort();
      // Random, so that the pages of a restarted server do not all come at once.
      const delay = 200 + Math.random() * Math.min(5000, 250 * 2 ** failures++);
      onState("waiting");
      setTimeout(open, delay);
    };
  }

  // settle ends one of our calls with its answer.
  function settle({ id, result, error }) {
    const call = pending.get(id);
    pending.delete(id);
    if (error) call?.reject(new RPCError(error));
    else call?.resolve(result);
  }

  // serve answers a call of the server.
  async function serve(ws, running, { id, method, params }) {
    const answer = { jsonrpc: "2.0", id };
    const controller = new AbortController();
    running.set(id, controller);
    try {
      const fn = table.get(method);
      if (!fn) throw new RPCError({ code: METHOD_NOT_FOUND, message: `this page has no method "${method}"` });
      answer.result = sendable(await fn(params, controller.signal));
    } catch (error) {
      answer.error = said(error);
    }
    running.delete(id);
    if (ws.readyState === WebSocket.OPEN) ws.send(JSON.stringify(answer));
  }

  // notified handles the one notification that matters here: the server no
  // longer waits for a call.
  function notified(running, { method, params }) {
    if (method === "$/cancelRequest") running.get(params.id)?.abort();
  }

  open();
  return {
    call(method, ...params) {
      if (socket.readyState !== WebSocket.OPEN) {
        return Promise.reject(new RPCError({ code: UNAVAILABLE, message: "not connected" }));
      }
      const id = ++lastID;
      return new Promise((resolve, reject) => {
        pending.set(id, { resolve, reject });
        socket.send(JSON.stringify({ jsonrpc: "2.0", id, method, params }));
      });
    },
  };
}

// said is what the server is told of what a method threw, which may be anything.
function said(thrown) {
  let answer = { code: INTERNAL_ERROR, message: "the method failed" };
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
