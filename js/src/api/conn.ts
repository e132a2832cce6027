import { type Client, newClient } from "../client/client.js";
import type { ConnectOptions } from "../client/options.js";
import type { State } from "../client/state.js";

/**
 * A connection to a server. It outlives its links, and what is in flight goes on with it: when a link breaks it
 * comes back by itself, until it is closed or coming back is pointless.
 */
export class Conn {
  /** @internal */
  readonly client: Client;
  /** @internal A handler's own calls wait for nothing. */
  readonly nested: boolean = false;
  /** @internal Its calls come from a handler of the ordered lane. */
  readonly ordered: boolean = false;
  /** What makes it another type than all that look like it. */
  declare private readonly kind: never;

  /** @internal */
  constructor(client: Client) {
    this.client = client;
  }

  /** What the connection is doing. */
  get state(): State {
    return this.client.state;
  }

  /** Resolves when the connection has ended for good; `state.error` says why. */
  get done(): Promise<void> {
    return this.client.done;
  }

  /** Calls listener with the state, and then with each that follows, until the function that it returns is called. */
  onState(listener: (state: State) => void): () => void {
    const { listeners, state } = this.client;
    listeners.add(listener);
    queueMicrotask(() => listener(state));
    return () => void listeners.delete(listener);
  }

  /** Ends the wait for the next attempt to connect, and gives up a link that there is. */
  reconnect(): void {
    this.client.reconnect();
  }

  /**
   * Ends the connection. Calls in flight fail. What is queued has four seconds to leave. It resolves when that
   * has ended; calling it again is fine.
   */
  close(): Promise<void> {
    return this.client.close();
  }
}

/**
 * Connects to a server: `ws://`, `wss://`, or an address relative to the page. It returns at once, and calls wait
 * for the link. It throws when an address makes no sense.
 */
export const connect = (url: string, options: ConnectOptions = {}): Conn => new Conn(newClient(url, options));
