import { type Outcome, RpcError, Status } from "../status.js";
import { type Frame, noMetadata } from "../wire/frame.js";
import { toBytes } from "../wire/text.js";
import { messageOverhead } from "./turn.js";

/** Bytes of all names and values of metadata. */
export const sizeOfMetadata = ({ metadata }: Pick<Frame, "metadata">): number =>
  metadata === noMetadata ? 0 : toBytes(Object.entries(metadata).flat().join("")).length;

/** What a message takes of a window or a budget. */
export const costOf = (frame: Frame): number => frame.payload.length + sizeOfMetadata(frame) + messageOverhead;

/** The error of a call that its caller does not wait for any more. */
export function canceled(outcome: Outcome, cause: unknown): RpcError {
  const late = cause instanceof Error && cause.name === "TimeoutError";
  return new RpcError(late ? Status.DeadlineExceeded : Status.Canceled, String(cause), { outcome, cause });
}
