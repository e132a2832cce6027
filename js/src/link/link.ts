import { Close, CloseCode } from "../wire/close.js";
import type { Socket, Timer } from "./socket.js";

/** The layer above a link. */
export interface Upper {
  /** The next message; undefined: there is nothing to write until the next wake. */
  fill(): Uint8Array<ArrayBuffer> | undefined;
  /** Takes a message that arrived. What it throws ends the link. */
  deliver(message: Uint8Array): void;
  /** Asks the peer for a sign of life. */
  ping(): void;
}

/** One WebSocket: writes what the layer above has ready, hands up what arrives, and watches the peer. */
export interface Link {
  upper: Upper;
  /** Bytes that one message may have. */
  mostBytes: number;
  /** Resolves when the socket is open, or the link has ended. */
  readonly opened: Promise<unknown>;
  /** Resolves when the link has ended, with why. */
  readonly ended: Promise<Close>;
  /** Why it ended; undefined: it lives. */
  cause: Close | undefined;
  /** Tells the link that there is something to write. */
  wake(): void;
  /** Ends the link; the first cause wins. Nothing more is taken from it. */
  fail(cause: Close): void;
  /** Begins to watch the peer: it is asked after an interval of silence, and given up after two. */
  keepAlive(interval: number): void;
  /** Looks whether the peer is still there, sooner than the interval would. */
  check(): void;
}

/** So much waits in the socket at most, but for one message: what is queued behind it still takes turns. */
const mostBuffered = 64 << 10;
/** How often a full socket is looked at, which does not tell when it has room again. */
const pollDelay = 4;
/** Microtasks that have their turn first: those that a message woke may have frames for the same batch. */
const hops = 4;
/** How long somebody who has just woken up waits for a sign of life. */
const patience = 5_000;

/** Makes a link of a socket. */
export function openLink(socket: Socket, upper: Upper): Link {
  let poll: Timer;
  let alive: Timer;
  let woken = false;
  let heard = Date.now();
  let buffered = 0;
  let resolve!: (cause: Close) => void;

  const ended = new Promise<Close>((f) => (resolve = f));
  const end = (cause: Close) => {
    link.cause ??= cause;
    socket.onopen = socket.onmessage = socket.onclose = null;
    clearTimeout(poll);
    clearTimeout(alive);
    resolve(cause);
  };
  const flush = () => {
    woken = false;
    while (!link.cause && socket.readyState === 1) {
      if (socket.bufferedAmount > mostBuffered) {
        clearTimeout(poll);
        poll = setTimeout(flush, pollDelay);
        return;
      }
      const message = link.upper.fill();
      if (!message) return;
      socket.send(message);
    }
  };
  const link: Link = {
    upper,
    mostBytes: 64 << 10,
    cause: undefined,
    ended,
    opened: Promise.race([new Promise((f) => (socket.onopen = f)), ended]),
    async wake() {
      if (woken) return;
      woken = true;
      for (let i = 0; i < hops; i++) await undefined;
      flush();
    },
    fail(cause) {
      if (link.cause) return;
      end(cause);
      const { code, message } = cause;
      // A page may say 1000 and codes of applications, and nothing else.
      if (!code) socket.close();
      else socket.close(code === CloseCode.Done || code >= 3000 ? code : CloseCode.Protocol, message.slice(0, 40)); // 123 bytes at most
    },
    keepAlive(interval) {
      const beat = () => {
        let silent = Date.now() - heard;
        const { bufferedAmount } = socket;
        // A large write that makes progress excuses the peer's silence.
        if (bufferedAmount < buffered) silent = Math.min(silent, interval);
        buffered = bufferedAmount;
        if (silent >= 2 * interval) return link.fail(new Close(CloseCode.Timeout));
        const idle = silent >= interval;
        if (idle) link.upper.ping();
        alive = setTimeout(beat, (idle ? 2 : 1) * interval - silent);
      };
      alive = setTimeout(beat, interval);
    },
    check() {
      const asked = Date.now();
      link.upper.ping();
      setTimeout(() => {
        if (heard < asked) link.fail(new Close(CloseCode.Timeout));
      }, patience);
    },
  };

  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }: { data: ArrayBuffer }) => {
    heard = Date.now();
    try {
      if (data.byteLength > link.mostBytes) throw new Close(CloseCode.TooBig);
      link.upper.deliver(new Uint8Array(data));
    } catch (err) {
      link.fail(err instanceof Close ? err : new Close(CloseCode.Protocol, String(err)));
    }
    link.wake(); // an answer may be due, and a full socket may have room
  };
  // A close follows, but in Node 22, where a socket that does not open tells this alone. Some hosts say what it was; browsers do not.
  socket.onerror = ({ message }: { message?: string }) => end(new Close(CloseCode.Abnormal, message));
  socket.onclose = ({ code, reason }: { code: number; reason: string }) => end(new Close(code, reason));
  return link;
}
