import type { Key, Repeat } from "../engine/turn.js";
import { isName } from "../wire/decode.js";

/** What a declaration says of how calls are made. */
export interface Traits {
  /** It may run twice: a call whose session is lost is sent again. */
  readonly idempotent?: boolean | undefined;
  /** The server remembers calls by their keys, so that each may be sent again and runs once: `keyed`, which this package exports. */
  readonly keyed?: ((key?: Key) => Repeat) | undefined;
  /** It is handled in order with the notifications and the other serial calls. */
  readonly serial?: boolean | undefined;
  /** How long a call may take, in milliseconds. */
  readonly timeout?: number | undefined;
}

/** What a declaration keeps its kind and its types in. It has no value. */
export declare const types: unique symbol;

/** A call that is answered once: its name and its types, as the server declares them. */
export interface Method<Request, Response> {
  readonly name: string;
  readonly traits: Traits;
  readonly [types]?: { readonly method: (request: Request) => Response };
}

/** Declares a call that is answered once. It throws when the name cannot be one. */
export const method = <Request, Response>(name: string, traits: Traits = {}): Method<Request, Response> => ({ name: checkName(name), traits });

/** Refuses what no declaration can be called. */
export function checkName(name: string): string {
  if (!isName(name) || /^(rpc\.|\$\/)/.test(name)) throw new TypeError(`not a name: ${name}`);
  return name;
}
