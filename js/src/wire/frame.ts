/** The types of frames, with their numbers in the binary dialect (PROTOCOL.md section 1). */
export const enum Type {
  Hello = 1,
  Welcome,
  Auth,
  AuthOK,
  Ping,
  Ack,
  GoAway,
  Call,
  Result,
  Fail,
  Cancel,
  Item,
  End,
  Credit,
  Notify,
  Chunk,
}

/** Bits of a frame's flags. */
export const enum Flag {
  /** CALL: its kind. */
  Kind = 0x03,
  /** CALL: made from an ordered handler; a wait that could deadlock fails instead. */
  Lane = 0x04,
  /** CALL: the caller sends no items. */
  NoItems = 0x08,
  /** FAIL: no handler saw the call, so sending it again is safe. */
  NotRun = 0x01,
  /** ITEM: from before the subscription. */
  History = 0x01,
}

/** The shapes of a call. */
export const enum Kind {
  Unary,
  ServerStream,
  ClientStream,
  BidiStream,
}

/** What travels beside a message: short texts by their names. */
export type Metadata = Readonly<Record<string, string>>;

export const noBytes = new Uint8Array();
export const noMetadata: Metadata = {};

/** Bytes of all names and values of a frame's metadata, at most. */
export const mostMetadata = 16 << 10;
/** Bytes of the name of a method or a fault, at most. */
export const mostName = 255;

/** One frame. Which fields mean something depends on its type; the others are zero. */
export class Frame {
  /** The payload goes on in CHUNK frames. */
  more = false;
  /** The sender is the caller of the call that id names. */
  fromCaller = false;
  /** It counts. Types of a later version say so by themselves. */
  counted: boolean;
  id = 0;
  flags = 0;
  /** Milliseconds until the caller's deadline; 0: none. */
  timeLeft = 0;
  method = "";
  metadata = noMetadata;
  code = 0;
  message = "";
  /** The declared error that the payload belongs to; "": none. */
  fault = "";
  retryAfter = 0;
  position = 0;
  items = 0;
  window = 0;
  dropped = 0;
  /** A message, an error's data, or the body of a frame of the handshake. */
  payload: Uint8Array = noBytes;

  constructor(
    readonly type: number,
    fields?: Partial<Frame>,
  ) {
    this.counted = type >= Type.Call;
    Object.assign(this, fields);
  }
}

/** The fields of each type's body that come before the payload, in their order. */
export const layouts: Readonly<Record<number, readonly (keyof Frame)[]>> = {
  [Type.Ping]: ["position"],
  [Type.Ack]: ["position"],
  [Type.Call]: ["id", "flags", "timeLeft", "method", "metadata"],
  [Type.Result]: ["id", "metadata"],
  [Type.Fail]: ["id", "flags", "code", "message", "retryAfter", "metadata"],
  [Type.Cancel]: ["id"],
  [Type.Item]: ["id", "flags", "dropped"],
  [Type.End]: ["id"],
  [Type.Credit]: ["id", "items", "window"],
  [Type.Notify]: ["method", "metadata"],
  [Type.Chunk]: ["id"],
};

/** Types whose payload may go on in CHUNK frames. */
export const mayContinue: readonly number[] = [Type.Call, Type.Result, Type.Item, Type.Notify, Type.Chunk];
/** Types that the caller of a call alone sends. */
export const mustBeCaller: readonly number[] = [Type.Call, Type.Cancel, Type.End];
/** Types that the caller of a call may send. */
export const mayBeCaller: readonly number[] = [...mustBeCaller, Type.Item, Type.Credit, Type.Chunk];
/** Types whose id is a call's; in the others 0 is the notification lane. */
export const namesCall: readonly number[] = [...mustBeCaller, Type.Result, Type.Fail, Type.Item];
/** Types whose body ends with its fields. */
export const hasNoPayload: readonly number[] = [Type.Ping, Type.Ack, Type.Cancel, Type.End, Type.Credit];
