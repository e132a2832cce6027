import { Close, CloseCode } from "./close.js";

const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Where short texts are encoded: what encode returns costs hosts several times as much as a copy. */
const scratch = new Uint8Array(3 << 10);

/** The bytes of a text. */
export const toBytes = (text: string): Uint8Array =>
  3 * text.length > scratch.length ? encoder.encode(text) : scratch.slice(0, encoder.encodeInto(text, scratch).written);

/** The text of some bytes; it throws when they are no UTF-8. */
export const toText = (bytes: Uint8Array): string => strict.decode(bytes);

/** The bytes of a message. Nothing is null, as Go reads it. */
export const encodeJSON = (value: unknown): Uint8Array => toBytes(JSON.stringify(value) ?? "null");

/** The message of some bytes. */
export const decodeJSON = (bytes: Uint8Array): unknown => (bytes.length ? JSON.parse(toText(bytes)) : null);

/** Ends the reading of what a peer must not send. */
export function malformed(what: string): never {
  throw new Close(CloseCode.Protocol, what);
}

/** Several pieces of bytes, which have so many together, in one. */
export function join(pieces: readonly Uint8Array[], size: number): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** 128 random bits, as hexadecimal digits. */
export const randomID = (): string => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
