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
  Head,
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
  /** ITEM: its sender paces itself by CREDIT, which is due as soon as it is consumed. */
  Prompt = 0x02,
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

/** One frame. Which fields mean something depends on its type; the others are zero. */
export interface Frame {
  type: number;
  /** It counts; types of a later version say so themselves. */
  counted: boolean;
  /** The payload goes on in CHUNK frames. */
  more: boolean;
  /** The sender is the caller of the call that id names. */
  fromCaller: boolean;
  id: number;
  flags: number;
  /** Milliseconds until the caller's deadline; 0: none. */
  timeLeft: number;
  method: string;
  metadata: Metadata;
  code: number;
  message: string;
  /** The declared error that the payload belongs to; "": none. */
  fault: string;
  retryAfter: number;
  position: number;
  items: number;
  window: number;
  dropped: number;
  /** A message, an error's data, or the body of a frame of the handshake. */
  payload: Uint8Array;
}

export const noBytes = new Uint8Array();
export const noMetadata: Metadata = {};

const zero: Frame = {
  type: 0,
  counted: false,
  more: false,
  fromCaller: false,
  id: 0,
  flags: 0,
  timeLeft: 0,
  method: "",
  metadata: noMetadata,
  code: 0,
  message: "",
  fault: "",
  retryAfter: 0,
  position: 0,
  items: 0,
  window: 0,
  dropped: 0,
  payload: noBytes,
};

/** Makes a frame. */
export const makeFrame = (type: number, fields?: Partial<Frame>): Frame => ({ ...zero, type, counted: type >= Type.Call, ...fields });

/** Bytes of all names and values of a frame's metadata, at most. */
export const mostMetadata = 16 << 10;
/** Bytes of the name of a method or a fault, at most. */
export const mostName = 255;
/** The metadata of a FAIL that names its fault: those who know none read on behind it. */
export const faultName = "rpc.fault";

/** What bits of the header a type may have, whether it has a payload, and whether it may be of no call. */
export const enum May {
  BeCaller = 1,
  BeCallee = 2,
  GoOn = 4,
  HavePayload = 8,
  LackID = 16,
  /** A type of a later version. */
  BeAnything = 63,
}

/** The fields of each type's body that come before the payload, in their order, and what else it may have. */
export const shapes: Readonly<Record<number, readonly [may: number, ...fields: (keyof Frame)[]]>> = {
  [Type.Hello]: [May.BeCallee | May.HavePayload | May.LackID],
  [Type.Welcome]: [May.BeCallee | May.HavePayload | May.LackID],
  [Type.Auth]: [May.BeCallee | May.HavePayload | May.LackID],
  [Type.AuthOK]: [May.BeCallee | May.HavePayload | May.LackID],
  [Type.Ping]: [May.BeCallee | May.LackID, "position"],
  [Type.Ack]: [May.BeCallee | May.LackID, "position"],
  [Type.GoAway]: [May.BeCallee | May.HavePayload | May.LackID],
  [Type.Call]: [May.BeCaller | May.GoOn | May.HavePayload, "id", "flags", "timeLeft", "method", "metadata"],
  [Type.Result]: [May.BeCallee | May.GoOn | May.HavePayload, "id", "metadata"],
  [Type.Fail]: [May.BeCallee | May.HavePayload, "id", "flags", "code", "message", "retryAfter", "metadata"],
  [Type.Cancel]: [May.BeCaller, "id"],
  [Type.Item]: [May.BeCaller | May.BeCallee | May.GoOn | May.HavePayload, "id", "flags", "dropped"],
  [Type.End]: [May.BeCaller, "id"],
  [Type.Credit]: [May.BeCaller | May.BeCallee | May.LackID, "id", "items", "window"],
  [Type.Notify]: [May.BeCallee | May.GoOn | May.HavePayload | May.LackID, "method", "metadata"],
  [Type.Chunk]: [May.BeCaller | May.BeCallee | May.GoOn | May.HavePayload | May.LackID, "id"],
  [Type.Head]: [May.BeCallee, "id", "metadata"],
};
