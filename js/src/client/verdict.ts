import { type RpcError, Status, hint, refuse } from "../status.js";
import type { ErrorBody } from "../wire/body.js";
import { type Close, CloseCode } from "../wire/close.js";

/** Whether coming back is pointless after a link ended so (PROTOCOL.md section 8). */
export const isFinal = (code: number, opened: unknown): boolean =>
  code === CloseCode.Protocol || code === CloseCode.Forbidden || (code === CloseCode.Unauthenticated && !opened);

const statuses: Record<number, number> = {
  [CloseCode.Protocol]: Status.Internal,
  [CloseCode.Unauthenticated]: Status.Unauthenticated,
  [CloseCode.Forbidden]: Status.PermissionDenied,
};

/** The end of a link as programs see it. */
export const explain = (cause: Close): RpcError =>
  refuse(statuses[cause.code] ?? Status.Unavailable, `the connection ended (${cause.code}) ${cause.message}`, { cause });

/** What a server says of credentials that it does not take. */
export const refused = ({ code, message, data, fault, retryAfter }: ErrorBody): RpcError =>
  refuse(code || Status.Unknown, message, { data, fault, retryAfter: hint(retryAfter) });
