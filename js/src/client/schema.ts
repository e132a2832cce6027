import type { Body } from "../wire/body.js";
import type { Client } from "./client.js";

/** What a page was built from, to be compared with what its server was. It is made by `schema`. */
export interface Schema {
  /** @internal What HELLO has of it beside credentials; undefined: there is no room. */
  offer(credentials: unknown): string | undefined;
  /** @internal The server has said what differs. */
  welcomed(client: Client, welcome: Body): void;
}
