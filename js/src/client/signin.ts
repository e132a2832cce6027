import type { RpcError } from "../status.js";
import type { Body } from "../wire/body.js";
import type { Client } from "./client.js";

/** Who a client is, and how that is proved anew before it ends. It is made by `signIn`. */
export interface SignIn {
  /** @internal What proves it. */
  present(): unknown;
  /** @internal The server has taken it. */
  welcomed(client: Client, welcome: Body): void;
  /** @internal The link is gone. */
  lost(): void;
  /** @internal There will be no other, and why. */
  closed(error: RpcError): void;
}
