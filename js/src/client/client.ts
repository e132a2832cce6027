import { type Engine, newEngine, noLink } from "../engine/engine.js";
import { type Link, type Upper, openLink } from "../link/link.js";
import type { Socket, SocketConstructor, Timer } from "../link/socket.js";
import { type Session, newSession } from "../session/session.js";
import { RpcError, Status, because, hint, refuse } from "../status.js";
import { type Body, type Hello, defaultLimits, readBody, writeBody } from "../wire/body.js";
import { Close, CloseCode } from "../wire/close.js";
import { framesOf } from "../wire/decode.js";
import { encode } from "../wire/encode.js";
import { Type, makeFrame, mostMetadata } from "../wire/frame.js";
import { malformed, randomID } from "../wire/text.js";
import type { ConnectOptions, ConnectionLimits } from "./options.js";
import type { State } from "./state.js";
import { explain, isFinal, refused } from "./verdict.js";

const subprotocol = "typedrpc.v1.json";

/** How long a link must have lived for its loss to start the backoff over. */
const lived = 10_000;
/** The wait where there is no backoff: a server that is down is not dialled as fast as a processor can. */
const leastOff = 10;
/** How long a connection that is closed waits for what was sent to be acknowledged. */
const closePatience = 4_000;
/** How often a session is resumed without a frame that gets through: what is sent again may be what breaks the link. */
const mostStuck = 16;
/** Events after which the network may be there again, and before which a browser closes the links of a page that it keeps. */
const events = ["online", "visibilitychange", "pageshow", "pagehide", "freeze"];

const defaults: ConnectionLimits = { ...defaultLimits, unacked: 8 << 20, grace: 30_000, keepAlive: 20_000, handshake: 10_000 };

/** The supervisor of a connection: gets it links, and comes back when they end. */
export interface Client {
  readonly engine: Engine;
  readonly options: ConnectOptions;
  state: State;
  readonly listeners: Set<(state: State) => void>;
  /** Resolves when the connection has ended for good. */
  done: Promise<void>;
  /** Ends the wait for the next attempt, and gives up a link that there is. */
  reconnect(): void;
  /** Ends the connection: calls fail, and what is queued is given some time to leave. */
  close(): Promise<void>;
  /** Tells that credentials could not be refreshed; there is a link all the same. */
  warn(error: RpcError): void;
}

/** Makes a connection and its supervisor, which begins to connect. It throws when an address makes no sense. */
export function newClient(target: string, options: ConnectOptions): Client {
  const limits = { ...defaults, ...options.limits };
  const urls = [...new Set([target, ...(options.urls ?? [])].map(socketURL))];
  const name = randomID();
  const features = ["streams", options.fragments && "fragments", limits.grace > 0 && "resume", options.signIn && "auth"].filter(isText);
  const socket: SocketConstructor | undefined = options.WebSocket ?? globalThis.WebSocket;
  if (!socket) throw new TypeError("this host has no WebSocket: give one as an option");
  const { signIn, schema } = options;

  let url = urls[0]!;
  let attempt = 0;
  /** Attempts that failed, in a row. */
  let failed = 0;
  let link: Link | undefined;
  /** When this attempt got the connection a link; 0: it has not. */
  let opened = 0;
  /** What the server said instead of WELCOME, or before it closed, or why there were no credentials. */
  let refusal: RpcError | undefined;
  /** The session that there is to go on with, … */
  let session: Session | undefined;
  let token: string | undefined;
  /** … how long it is kept without a link, … */
  let grace = 0;
  let expiry: Timer;
  /** … its positions at the last link's end, and how often in a row they were the same. */
  let stuck = { acked: 0, received: 0, times: 0 };
  /** When the server wants us back. */
  let window: [min?: number, max?: number] = [];
  /** The server of the last attempt is going away. */
  let leaving = false;
  /** The server has said how long to wait. */
  let told = false;
  /** Ends the wait for the next attempt. */
  let now = (): void => undefined;
  let closing = false;

  const engine = newEngine(
    limits,
    {
      goAway({ min, max, error }) {
        if (error) refusal = refused(error); // it closes now
        const low = hint(min) ?? 0;
        window = [low, Math.max(low, hint(max) ?? 0)];
      },
      authOK: () => malformed("AUTH_OK without AUTH"),
    },
    options.fragments,
  );

  /** Tells the listeners what the connection is doing. */
  const change = (state: State["state"], more: Partial<State> = {}) => {
    const next = (client.state = { state, failed, url: publicURL(url), since: engine.unlinked || undefined, ...more });
    for (const tell of client.listeners) queueMicrotask(() => tell(next));
  };
  /** Gives the session up. */
  const drop = (cause: Error) => {
    clearTimeout(expiry);
    if (!session) return;
    session = token = undefined;
    engine.lost(cause, !engine.closed);
  };

  /** Takes the server's WELCOME. */
  const welcomed = (by: Link, welcome: Body) => {
    const { received, resumed, keepalive } = welcome;
    clearTimeout(expiry);
    by.mostBytes = limits.message + (64 << 10) + 6 * mostMetadata;
    if (!resumed) {
      drop(new Error(`the session was lost: ${welcome.reason}`));
      const shared = features.filter((feature) => welcome.features.includes(feature));
      session = newSession(engine, shared.includes("resume") ? limits.unacked : 0);
      grace = Math.min(limits.grace, welcome.grace || Infinity);
      engine.opened(session, welcome, shared);
    } else if (!session) {
      throw new Close(CloseCode.Done, "the session was lost");
    }
    session.attach(by, received);
    by.keepAlive(Math.min(limits.keepAlive, keepalive || Infinity));
    token = welcome.token;
    opened = Date.now();
    engine.unlinked = 0;
    signIn?.welcomed(client, welcome);
    schema?.welcomed(client, welcome);
    change("connected", { resumed });
  };

  /** Says HELLO over a link that is open, and takes the answer. */
  const hail = async (by: Link, upper: Upper, socket: Socket) => {
    let credentials: unknown;
    try {
      credentials = await signIn?.present();
    } catch (cause) {
      refusal = refuse(Status.Unauthenticated, "no credentials", { cause });
      return by.fail(new Close(CloseCode.Done));
    }
    if (by.cause) return;
    const { message, calls, window, budget } = limits;
    const hello: Hello = {
      attempt,
      client: name,
      token,
      received: session?.received,
      credentials,
      schema: schema?.offer(credentials),
      limits: { message, calls, window, budget },
      features,
    };
    upper.deliver = (bytes) => {
      const [{ type, payload }, ...more] = [...framesOf(bytes)] as [ReturnType<typeof makeFrame>];
      if (more.length || refusal) malformed("handshake");
      const body = readBody(payload);
      if (type === Type.Welcome) welcomed(by, body);
      else if (type === Type.AuthOK && body.error) refusal = refused(body.error);
      else malformed("handshake");
    };
    socket.send(encode(makeFrame(Type.Hello, { payload: writeBody(hello) })));
  };

  /** Makes one attempt and, if it gets the connection a link, returns when that has ended. */
  const connect = async (): Promise<Close> => {
    opened = 0;
    refusal = undefined;
    attempt++;
    const upper: Upper = { fill: () => undefined, deliver: () => malformed("handshake"), ping: () => undefined };
    const ws = new socket(url, [subprotocol]);
    const by = (link = openLink(ws, upper));
    const timer = setTimeout(() => {
      if (!opened) by.fail(new Close(CloseCode.Timeout, "no handshake in time"));
    }, limits.handshake);
    await by.opened;
    if (ws.protocol !== subprotocol) by.fail(new Close(CloseCode.Protocol, `no server of ${subprotocol}`));
    if (!by.cause) await hail(by, upper, ws);
    const cause = await by.ended;
    clearTimeout(timer);
    link = undefined;
    const why = (engine.why = refusal ?? explain(cause));
    if (session?.link !== by) return cause;
    signIn?.lost();
    const { acked, received, sent } = session;
    const same = sent > acked && acked === stuck.acked && received === stuck.received;
    stuck = { acked, received, times: same ? stuck.times + 1 : 0 };
    if (!session.detach(cause) || closing || stuck.times >= mostStuck) drop(why);
    else engine.linkDown();
    expiry = setTimeout(drop, grace, why);
    return cause;
  };

  /** Takes what a host throws that makes no socket. */
  const unopened = (error: unknown): Close => {
    const cause = new Close(CloseCode.None, String(error));
    engine.why = explain(cause);
    return cause;
  };

  /** Decides when to come back; undefined: that is pointless. */
  const verdict = (code: number, retryAfter = 0): number | undefined => {
    if (isFinal(code, opened)) return;
    const { off, least = 0, min = Math.max(100, least), max = Math.max(30_000, min), factor = 2 } = options.backoff ?? {};
    const delay = (bound: number) => (off ? Math.max(leastOff, least) : least + Math.random() * Math.max(0, bound - least));
    // A session that is left does not wait for ever, nor as long as a server's restart takes.
    const most = session ? Math.min(max, grace / 4) : max;
    const [from = 0, to = 0] = session || code === CloseCode.Unauthenticated ? [] : window;
    window = [];
    leaving = to > 0;
    const late = code === CloseCode.Flood || code === CloseCode.Budget;
    told = late || leaving || retryAfter > 0;
    if (late) return (most + delay(most)) / 2;
    return Math.max(
      // A server that sends every link away is not well, whatever it says.
      leaving && failed < 2 ? 0 : delay(Math.min(most, min * factor ** (failed - 1))),
      from + Math.random() * (to - from),
      // What all are told, they should not all do at the same moment.
      retryAfter * (1 + Math.random() / 2),
    );
  };

  const run = async () => {
    let error: RpcError;
    for (;;) {
      let cause!: Close;
      // The session's own address is the first, one that is going away the last.
      const weigh = (other: string) => (other !== url || !(session || leaving) ? Math.random() : session ? -1 : 1);
      for ([, url] of urls.map((url) => [weigh(url), url] as const).sort(([a], [b]) => a - b)) {
        change("connecting");
        cause = await connect().catch(unopened);
        if (opened || closing || isFinal(cause.code, false)) break;
      }
      error = engine.why!;
      if (opened && Date.now() - opened >= lived) failed = 0;
      failed++;
      const wait = verdict(cause.code, error.retryAfter);
      if (closing || wait === undefined) break;
      change("waiting", { error, next: Date.now() + wait });
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, wait);
        now = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      if (closing) break;
    }
    for (const event of events) globalThis.removeEventListener?.(event, awake, true);
    if (!engine.closed) engine.close(error);
    drop(error);
    signIn?.closed(engine.closed!);
    change("closed", { error: engine.closed });
  };

  /** The network may be there again, or the page has been asleep; or it is about to be, and would end its session. */
  const awake = ({ type, persisted }: Event & Partial<PageTransitionEvent>) => {
    // A page that is left for good says so, and nobody waits for it.
    const leaves = type === "pagehide";
    if (leaves || type === "freeze") return link?.fail(new Close(leaves && !persisted ? CloseCode.Done : CloseCode.None));
    if (globalThis.document?.hidden) return;
    if (!told) now();
    if (!engine.unlinked) link?.check();
  };

  const client: Client = {
    engine,
    options,
    state: undefined as never, // until it runs
    listeners: new Set(),
    done: undefined as never,
    reconnect() {
      now();
      link?.fail(new Close(CloseCode.None));
    },
    close() {
      if (closing) return client.done;
      closing = true;
      const by = link;
      const goodbye = new Close(CloseCode.Done);
      engine.close(because(refuse(Status.Unavailable, "the connection was closed by this side"), noLink(engine)));
      now();
      if (engine.unlinked) by?.fail(goodbye);
      engine.parting = goodbye;
      engine.wake();
      const timer = setTimeout(() => by?.fail(goodbye), closePatience);
      return client.done.finally(() => clearTimeout(timer));
    },
    warn: (error) => change(client.state.state, { ...client.state, error }),
  };
  for (const event of events) globalThis.addEventListener?.(event, awake, true); // freeze does not bubble
  client.done = run();
  return client;
}

/** The address of a WebSocket. */
const socketURL = (text: string): string => new URL(text, globalThis.location?.href).href.replace(/^http/, "ws").replace(/#.*/, "");

/** An address without what may be secret. */
function publicURL(text: string): string {
  const { origin, pathname } = new URL(text);
  return origin + pathname;
}

const isText = (value: unknown): value is string => typeof value === "string";
