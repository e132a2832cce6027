import type { Above, Session } from "../session/session.js";
import type { Outcome, RpcError } from "../status.js";
import type { Body, Limits } from "../wire/body.js";
import type { Close } from "../wire/close.js";
import type { Frame } from "../wire/frame.js";
import type { Call, Turn, Turned } from "./turn.js";

/** A part of an engine that a program which does not use it does not pay for. */
export interface Part {
  /** A session begins. */
  opened?(): void;
  /** The session is over, and these had not left; again tells whether another session may come. */
  lost?(again: boolean, turns: readonly Turn[]): void;
  /** Adds frames that go before all others. */
  take?(session: Session): void;
  /** The connection is closed by this side: nothing new is taken. */
  closed?(error: RpcError): void;
  /** Whether something of it is in flight. */
  busy?(): boolean;
}

/** The peer's calls and notifications. */
export interface Incoming extends Part {
  /** Takes a CALL, with MORE the beginning of one, and tells whether the rest is wanted. */
  call(frame: Frame): boolean;
  /** Takes the whole of a CALL that came in parts; undefined: it was too large. */
  whole(id: number, frame: Frame | undefined): void;
  /** Takes a NOTIFY; with MORE it was too large. */
  notify(frame: Frame): void;
  /** Takes CANCEL, END, and ITEM and CREDIT of streams that the peer has opened. */
  about(frame: Frame): void;
}

/** One connection over many links: calls both ways, and what stands on them. It sees bytes and names, never types. */
export interface Engine extends Above {
  /** What this side takes. */
  readonly limits: Limits;
  /** What the peer of this session, or of the last one, takes, … */
  peer: Limits;
  /** … what it shares with this side, and the identity of its replay cache, "": it has none. */
  features: readonly string[];
  cache: string;
  session: Session | undefined;
  /** Since when there has been no link, as Date.now() counts; 0: there is one. */
  unlinked: number;
  /** What the last link, or attempt to get one, ended with. */
  why: RpcError | undefined;
  /** Why nothing is taken any more. */
  closed: RpcError | undefined;
  /** Why the session is to end once all has left. */
  parting: Close | undefined;
  /** Ids of the latest calls of ours, and of the peer's. */
  lastID: number;
  lastPeerID: number;
  /** Notifications to credit. */
  credits: number;
  /** Bytes of items that nobody has received yet, and of messages in parts. */
  unread: number;
  /** Our calls that were counted, by their ids. A cancelled one holds its place until its answer comes. */
  readonly pending: Map<number, Call>;
  readonly queue: Set<Turn>;
  incoming: Incoming;
  /** Takes a CREDIT for notifications. */
  credited(frame: Frame): void;
  /** The part that is made by a function, which is called once. */
  part<T extends Part>(make: (engine: Engine) => T): T;
  wake(): void;
  /** Queues something for the writer. */
  push(turn: Turn): void;
  /** Takes something out of the queue. */
  remove(turn: Turn): void;
  /** The frame of a turn, or its first fragment, is about to be counted. */
  counts(turn: Turn): void;
  /** Sends a turn's frame, or the next fragment of it. */
  send(turn: Turn, frame: Frame, session: Session): Turned;
  /** Answers a call of the peer's that no handler saw. */
  refuse(id: number, code: number, message: string): void;
  /** Gives up the unfinished message of a call that has ended. */
  dropPart(id: number, fromCaller: boolean): void;
  /** Counts what an honest peer does not do. */
  offended(): void;
  /** Takes a CALL, and tells whether the rest of it is wanted. */
  called(frame: Frame): boolean;
  /** Makes a call. It never waits: the call is told what becomes of it. */
  start(call: Call): void;
  /** Ends a call from this side. Without why it is for what it lacks. */
  giveUp(call: Call, why?: (outcome: Outcome) => RpcError): void;
  /** Takes a RESULT or FAIL. */
  answered(frame: Frame): void;
  /** Begins a session: what was held goes out as soon as it has a link. */
  opened(session: Session, welcome: Body, features: readonly string[]): void;
  /** The session goes on without a link: what would rather fail than wait for one, and has not left, does. */
  linkDown(): void;
  /** The session is over. Calls in flight fail, or wait for the next one with again, and so does what never left. */
  lost(cause: Error, again: boolean): void;
  /** Takes nothing any more; what is there fails, and what is queued still leaves. */
  close(error: RpcError): void;
}
