import type { FragmentsMaker } from "../engine/fragments.js";
import type { SocketConstructor } from "../link/socket.js";
import type { Limits } from "../wire/body.js";
import type { Schema } from "./schema.js";
import type { SignIn } from "./signin.js";

/** What a call does while there is no link: wait for one, or fail at once. */
export type WithoutLink = "wait" | "fail";

/** How long to wait before trying again: a random time up to a bound that grows. */
export interface Backoff {
  /** Bound of the first wait, in milliseconds. Default 100. */
  min?: number;
  /** Largest bound, in milliseconds. Default 30,000. */
  max?: number;
  /** Growth of the bound. Default 2. */
  factor?: number;
  /** Every wait has at least so many milliseconds, and is random above them. Default 0. */
  least?: number;
  /** No backoff: every wait has `least` milliseconds, 10 or more, and `min`, `max` and `factor` mean nothing. */
  off?: boolean;
}

/** What a connection takes of its peer, and how long it is patient. */
export interface ConnectionLimits extends Limits {
  /** Bytes that were sent and are not acknowledged, at most. Default 8 MiB. */
  unacked: number;
  /** Milliseconds that a session is kept without a link; 0: it ends with its link. Default 30,000. */
  grace: number;
  /** Milliseconds of silence after which the peer is asked for a sign of life. Default 20,000. */
  keepAlive: number;
  /** Milliseconds in which a link must be opened, credentials included. Default 10,000. */
  handshake: number;
}

/** What a connection can be told when it is made. */
export interface ConnectOptions {
  /** Other addresses of the same service, tried in random order. */
  urls?: readonly string[] | undefined;
  /** Who this client is; see `signIn`. */
  signIn?: SignIn | undefined;
  /** What the page was built from, to be compared with what the server was; see `schema`. */
  schema?: Schema | undefined;
  /** What calls do while there is no link. Default "wait". */
  withoutLink?: WithoutLink | undefined;
  /** How long to wait between attempts to connect. */
  backoff?: Backoff | undefined;
  /** What this side takes, and how long it is patient. */
  limits?: Partial<ConnectionLimits> | undefined;
  /** Has large messages take turns with small ones: `fragments`, which this package exports. */
  fragments?: FragmentsMaker | undefined;
  /** Makes WebSockets where there is none, or another one is wanted. Default `globalThis.WebSocket`. */
  WebSocket?: SocketConstructor | undefined;
}
