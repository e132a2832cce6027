/** WebSocket close codes; PROTOCOL.md section 8 says what they mean. */
export const enum CloseCode {
  /** The link ends without a goodbye. */
  None = 0,
  Done = 1000,
  /** What hosts say of a link that broke. */
  Abnormal = 1006,
  TooBig = 1009,
  Restart = 1012,
  Protocol = 4400,
  Unauthenticated = 4401,
  Forbidden = 4403,
  Timeout = 4408,
  Budget = 4413,
  Flood = 4429,
}

/** Why a link ends. */
export class Close extends Error {
  constructor(
    readonly code: number,
    reason = "",
  ) {
    super(reason);
  }
}
