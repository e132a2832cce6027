import type { RpcError } from "../status.js";

/** What a connection is doing. */
export interface State {
  readonly state: "connecting" | "connected" | "waiting" | "closed";
  /** Attempts that failed, in a row. */
  readonly failed: number;
  /** The address, without credentials and query. */
  readonly url: string;
  /** Since when there has been no link, as Date.now() counts; undefined: there is one. */
  readonly since?: number | undefined;
  /** connected: whether the session went on, so that nothing was lost. */
  readonly resumed?: boolean | undefined;
  /** waiting: when the next attempt is made, as Date.now() counts. */
  readonly next?: number | undefined;
  /** waiting and closed: why. connected: why credentials could not be refreshed. */
  readonly error?: RpcError | undefined;
}
