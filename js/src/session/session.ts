import type { Link, Upper } from "../link/link.js";
import type { Timer } from "../link/socket.js";
import { Close, CloseCode } from "../wire/close.js";
import { type Body, readBody } from "../wire/body.js";
import { framesOf } from "../wire/decode.js";
import { encode, sizeOf } from "../wire/encode.js";
import { type Frame, Type, makeFrame } from "../wire/frame.js";
import { join, malformed } from "../wire/text.js";
import { bucket } from "./bucket.js";

/** The layer above a session. What it throws ends the session. */
export interface Above {
  /** Adds the frames that are ready to the session's message, in the order in which they are to be sent. */
  take(session: Session): void;
  /** Takes a counted frame. */
  receive(frame: Frame): void;
  /** Takes a GOAWAY. */
  goAway(body: Body): void;
  /** Is told how far the peer has read. */
  acknowledged?(position: number): void;
  /** Takes the answer to an AUTH. */
  authOK(body: Body): void;
  /** Why the session is to end as soon as all was acknowledged; undefined: it is not. */
  goodbye(): Close | undefined;
}

/**
 * What outlives links, and the one place where frames are counted: it says how far it has read, knows how far
 * its peer has, and keeps what the peer may lack.
 */
export interface Session extends Upper {
  /** Counted frames that were sent, … */
  sent: number;
  /** … that the peer has acknowledged, … */
  acked: number;
  /** … and that were received. */
  received: number;
  /** What carries it; undefined: it has no link. */
  link: Link | undefined;
  /** Makes link what carries the session. The peer has received as much as position says, and is sent the rest again. */
  attach(link: Link, position: number): void;
  /** Takes the link away, and tells whether the session goes on after it ended so. */
  detach(cause: Close): boolean;
  /** Sends a frame that does not count, before all others; without a link it is lost. */
  control(frame: Frame): void;
  /** Whether a frame still fits the message that is being made, and the log. */
  fits(frame: Frame): boolean;
  /** Adds a counted frame to the message: now it is counted. */
  add(frame: Frame): void;
}

/** An ACK is sent at the latest after so many frames, bytes or milliseconds (PROTOCOL.md section 2.3). */
const ackFrames = 64;
const ackBytes = 64 << 10;
const ackDelay = 1_000;
/** A message has so many bytes at most, or one frame that is larger. */
const messageBytes = 64 << 10;
/** What an entry of the log takes beside its frame's bytes. */
const entryOverhead = 96;

/** Metadata that tells how old a keyed call is: what is sent again is older. */
export const ageName = "idempotency-age";

/** Close codes that end the session with its link, from either side (PROTOCOL.md section 8). */
const ends: readonly number[] = [
  CloseCode.Done,
  CloseCode.TooBig,
  CloseCode.Restart,
  CloseCode.Protocol,
  CloseCode.Unauthenticated,
  CloseCode.Forbidden,
  CloseCode.Budget,
  CloseCode.Flood,
];

/** A counted frame that was sent and is not acknowledged. */
interface Entry {
  frame: Frame;
  size: number;
  at: number;
}

/** Begins a session, which keeps so many bytes of what was sent; 0: it ends with its link. */
export function newSession(above: Above, mostLogged: number): Session {
  const log: Entry[] = [];
  let logged = 0;
  /** Of the counted frames, those that were sent over this link. */
  let next = 0;
  let out: Uint8Array[] = [];
  let size = 0;
  let control: Frame[] = [];
  /** A PING waits in control; one went out because the log is filling up. */
  let pinging = false;
  let asked = false;
  /** Of the frames received, those that were not acknowledged, and their bytes. */
  let newly = 0;
  let newBytes = 0;
  let ackDue = false;
  let ackTimer: Timer;
  const idled = bucket();

  const put = (frame: Frame) => {
    const bytes = encode(frame);
    out.push(bytes);
    size += bytes.length;
    return bytes.length;
  };
  const message = () => {
    const whole = size ? join(out, size) : undefined;
    out = [];
    size = 0;
    return whole;
  };
  /** Asks for an acknowledgement: the peer would not hurry. */
  const ask = () => {
    if (!asked) session.ping();
    asked = true;
  };
  const acknowledged = (position: number) => {
    const { sent, acked } = session;
    if (position > sent || position < acked) malformed("position");
    if (position === acked) idled();
    for (const entry of log.splice(0, position - acked)) logged -= entry.size;
    session.acked = position;
    above.acknowledged?.(position);
    next = Math.max(next, position);
    asked = false;
    if (logged > mostLogged / 2) ask();
  };
  const received = (frame: Frame) => {
    const { type, counted, position, payload } = frame;
    if (counted) {
      session.received++;
      if (++newly >= ackFrames) ackDue = true;
      ackTimer ??= setTimeout(() => {
        ackTimer = undefined;
        ackDue ||= newly > 0;
        session.link?.wake();
      }, ackDelay);
      if (type <= Type.Chunk) above.receive(frame); // a later version's is skipped
    } else if (type === Type.Ping || type === Type.Ack) {
      ackDue ||= type === Type.Ping;
      acknowledged(position);
    } else if (type === Type.GoAway) {
      above.goAway(readBody(payload));
    } else if (type === Type.AuthOK) {
      above.authOK(readBody(payload));
    } else if (type <= Type.Chunk) {
      malformed("handshake");
    } else {
      idled();
    }
  };

  const session: Session = {
    sent: 0,
    acked: 0,
    received: 0,
    link: undefined,
    attach(link, position) {
      acknowledged(position);
      next = position;
      control = [];
      pinging = false;
      ackDue = true; // at once: it confirms the token
      session.link = link;
      link.upper = session;
      link.wake();
    },
    detach({ code }) {
      session.link = undefined;
      clearTimeout(ackTimer);
      ackTimer = undefined;
      return mostLogged > 0 && !ends.includes(code);
    },
    ping() {
      if (!pinging) session.control(makeFrame(Type.Ping));
      pinging = true;
    },
    control(frame) {
      control.push(frame);
      session.link?.wake();
    },
    fits(frame) {
      const bytes = sizeOf(frame);
      if (!logged || logged + bytes <= mostLogged) return !size || size + bytes <= messageBytes;
      ask();
      return false;
    },
    add(frame) {
      next = ++session.sent;
      const bytes = put(frame) + entryOverhead;
      if (!mostLogged) return;
      log.push({ frame, size: bytes, at: Date.now() });
      logged += bytes;
      if (logged > mostLogged / 2) ask();
    },
    fill() {
      for (let frame; (frame = control[0]); ) {
        const alone = frame.type === Type.Auth;
        if (alone && size) return message();
        control.shift();
        if (!alone) pinging = false;
        put({ ...frame, position: session.received });
        if (alone) return message();
      }
      if (ackDue) {
        put(makeFrame(Type.Ack, { position: session.received }));
        ackDue = false;
        newly = newBytes = 0;
      }
      if (next === session.sent) above.take(session);
      // What the peer lacks of what was sent over an earlier link.
      while (next < session.sent) {
        const entry = log[next - session.acked]!;
        if (size && size + entry.size > messageBytes) break;
        put(again(entry));
        if (++next === session.sent) session.ping(); // so that the log can be emptied
      }
      const cause = size ? undefined : above.goodbye();
      if (cause && session.acked < session.sent) ask();
      else if (cause) session.link?.fail(cause);
      return message();
    },
    deliver(bytes) {
      for (const frame of framesOf(bytes)) received(frame);
      newBytes += bytes.length;
      ackDue ||= newly > 0 && newBytes >= ackBytes;
    },
  };
  return session;
}

/** A frame as it is to be sent now: the time that it has left is shorter, and a keyed call is older. */
function again({ frame, at }: Entry): Frame {
  const late = Date.now() - at;
  const { timeLeft, metadata } = frame;
  const age = metadata[ageName];
  return {
    ...frame,
    timeLeft: timeLeft && Math.max(1, timeLeft - late),
    metadata: age ? { ...metadata, [ageName]: String(Number(age) + late) } : metadata,
  };
}
