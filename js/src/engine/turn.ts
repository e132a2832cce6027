import type { Session } from "../session/session.js";
import type { RpcError } from "../status.js";
import type { Frame, Metadata } from "../wire/frame.js";

/** How a turn at the writer ended. */
export const enum Turned {
  /** Nothing is left to send. */
  Done,
  /** There is more, for another turn. */
  More,
  /** The message is full. */
  Full,
  /** It is out of the queue, until others have left. */
  Later,
}

/** What waits for its turn at the writer: a frame, or all that a stream has to send. */
export interface Turn {
  readonly frame: Frame;
  /** It does not overtake others that are ordered. */
  readonly ordered?: boolean | undefined;
  /** Bytes of the payload that left in fragments. */
  sent?: number;
  /** Sends what it has for one turn, where that is more than its frame. */
  turn?(session: Session): Turned;
  /** The frame has left, the whole of it. */
  left?: (() => void) | undefined;
}

/** One call of ours and its attempts. */
export interface Call extends Turn {
  /** What it takes of the peer's budget. */
  readonly cost: number;
  readonly idempotent?: boolean | undefined;
  /** It fails instead of waiting for a link. */
  readonly failFast: boolean;
  /** It was made by a handler of the same connection, and fails instead of waiting for anything. */
  readonly nested?: boolean | undefined;
  /** What makes it safe to send it again. */
  readonly repeat?: Repeat | undefined;
  /** When the caller gives up, as Date.now() counts; 0: never. */
  readonly deadline: number;
  /** Whether it is a stream, … */
  readonly streams?: boolean;
  /** … and items of this side belong to it: then it is not sent again. */
  readonly sends?: boolean;
  /** It has its place although a larger one waits in front of it. */
  passes?: boolean;
  /** The id of an attempt that was not run, or lost: its place in line. */
  order?: number;
  resends?: number;
  /** An earlier attempt may have run. */
  lost?: boolean;
  settled?: boolean;
  /** Is told how it ended, once: with an error, or with the answer. Of a FAIL it is told both. */
  done(error: RpcError | undefined, answer: Frame | undefined): void;
  /** Takes an ITEM, where it is a stream, … */
  item?: ((frame: Frame) => void) | undefined;
  /** … and a CREDIT. */
  credit?: ((frame: Frame) => void) | undefined;
}

/** What the calls of a keyed method remember of where they were made (PROTOCOL.md section 2.7). */
export interface Key {
  /** The key as it travels. */
  readonly id: string;
  /** @internal When its first attempt was made; 0: nobody knows it yet. */
  born: number;
  /** @internal The cache that its uses went to, "": to a peer without one. */
  cache: string;
  /** @internal Attempts under way, that ran, or may have run. */
  uses: number;
}

/** What makes it safe to repeat a call, although it may have run. */
export interface Repeat {
  /** What the CALL carries. */
  readonly metadata: Metadata;
  /** Notes an attempt that is about to go to the cache named, or says why it must not. */
  claim(cache: string, repeat: boolean): RpcError | undefined;
  /** Whether a repeat is safe, as long as it goes to the same cache. */
  remembered(): boolean;
  /** The attempt was lost with its session. */
  lost(): void;
  /** Metadata with the age that the key has now. */
  stamp(metadata: Metadata): Metadata;
  /** Notes how the call failed, and says what that means. */
  failed(error: RpcError, answer: Frame | undefined): RpcError;
}

/** What every message counts beside its bytes, so that empty ones are bounded too (PROTOCOL.md section 3). */
export const messageOverhead = 64;

/** The least that a stream's share of a budget is taken for. */
export const smallItem = (1 << 10) + messageOverhead;
