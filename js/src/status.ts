/** The codes of errors: gRPC's, with gRPC's meaning, or an application's own number. */
export const Code = {
  Canceled: 1,
  Unknown: 2,
  InvalidArgument: 3,
  DeadlineExceeded: 4,
  NotFound: 5,
  AlreadyExists: 6,
  PermissionDenied: 7,
  ResourceExhausted: 8,
  FailedPrecondition: 9,
  Aborted: 10,
  OutOfRange: 11,
  Unimplemented: 12,
  Internal: 13,
  Unavailable: 14,
  DataLoss: 15,
  Unauthenticated: 16,
} as const;

/** The codes that this library makes errors of itself. */
export const enum Status {
  Canceled = 1,
  Unknown = 2,
  InvalidArgument = 3,
  DeadlineExceeded = 4,
  PermissionDenied = 7,
  ResourceExhausted = 8,
  FailedPrecondition = 9,
  Unimplemented = 12,
  Internal = 13,
  Unavailable = 14,
  DataLoss = 15,
  Unauthenticated = 16,
}

/**
 * How far a failed call got, as a fact and not as a guess: no handler saw it, it left and no answer
 * came, or the error is its handler's answer.
 */
export type Outcome = "notSent" | "mayHaveRun" | "answered";

/** What an {@link RpcError} has beside its code and its message. */
export interface ErrorFields {
  /** How far the call got. Default "mayHaveRun": what nobody knows is not safe to call again. */
  outcome?: Outcome | undefined;
  /** The name of the declared error that it is. */
  fault?: string | undefined;
  /** Typed detail, as it was decoded. */
  data?: unknown;
  /** How long to wait before trying again, in milliseconds, as the peer said. */
  retryAfter?: number | undefined;
  /** Items of a stream may be missing. */
  gap?: boolean | undefined;
  /** What led to it, here. */
  cause?: unknown;
  /** @internal */
  said?: string | undefined;
}

/** What every failed call, stream, notification and connection fails with. */
export class RpcError extends Error {
  override name = "RpcError";
  /** How far the call got. */
  declare readonly outcome: Outcome;
  /** The name of the declared error that it is; undefined: it is none. */
  declare readonly fault: string | undefined;
  /** Typed detail, as it was decoded; undefined: there is none. */
  declare readonly data: unknown;
  /** How long to wait before trying again, in milliseconds, as the peer said; undefined: it did not. */
  declare readonly retryAfter: number | undefined;
  /** Whether items of a stream may be missing: its session was lost, or its server was shut down. */
  declare readonly gap: boolean;
  /** @internal Of the message what a peer may be told, where it names what is none of its business. */
  declare readonly said: string | undefined;

  constructor(
    /** What kind of error it is: one of {@link Code}, or an application's own number. */
    readonly code: number,
    message: string,
    { outcome = "mayHaveRun", fault, data, retryAfter, gap = false, said, cause }: ErrorFields = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    Object.assign(this, { outcome, fault: fault || undefined, data, retryAfter, gap, ...(said && { said }) });
  }
}

/** The error of what this side refuses before anything of it has left. */
export const refuse = (code: number, message: string, fields?: ErrorFields): RpcError => new RpcError(code, message, { ...fields, outcome: "notSent" });

/** The same error with another text, and with some other fields. */
export const changed = (error: RpcError, message: string, fields: ErrorFields): RpcError =>
  new RpcError(error.code, message, Object.assign({ cause: error.cause }, error, fields));

/** The same error of a call that got as far as outcome. */
export const withOutcome = (error: RpcError, outcome: Outcome): RpcError => changed(error, error.message, { outcome });

/** The same error, which says what was lacking. */
export function because(error: RpcError, lacked: RpcError | undefined): RpcError {
  const { message, said = message, cause = lacked?.cause } = error;
  return lacked ? changed(error, `${message}; ${lacked.message}`, { cause, said }) : error;
}

/** Nobody can be asked to wait for longer: an hour. */
export const mostHint = 3_600_000;

/** How long a peer asks to wait. */
export const hint = (milliseconds = 0): number | undefined => (milliseconds ? Math.min(milliseconds, mostHint) : undefined);
