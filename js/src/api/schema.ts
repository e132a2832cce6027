import type { Schema } from "../client/schema.js";
import { encodeJSON } from "../wire/text.js";

/**
 * What stands for the kinds and the messages of an API, by their names: 16 hexadecimal digits, of which ten are the
 * name's and six the fingerprint's (PROTOCOL.md section 2.2). `typedrpc ts` writes them.
 */
export type Fingerprints = Readonly<Record<string, string>>;

/** So many names are compared: those whose digits are the smallest, so that of larger APIs two peers send the same. */
const mostNames = 2_048;
/** Bytes that fingerprints and credentials may have together in a HELLO: larger credentials go alone. */
const mostOffered = 56 << 10;
/** Names that are logged. */
const mostLogged = 16;

/**
 * Compares what a page was built from with what its server was, where both say so: an option of `connect`, one for each
 * connection. differs is told once of the names whose kinds or messages differ; without it the console is. Nothing is
 * refused, and the page can go on, or load itself anew.
 */
export function schema(fingerprints: Fingerprints, differs?: (names: string[]) => void): Schema {
  const pairs = Object.values(fingerprints).sort().slice(0, mostNames);
  const offered = btoa(pairs.join("").replace(/../g, (byte) => String.fromCharCode(parseInt(byte, 16)))).replace(/=+$/, "");
  let told = false;

  return {
    offer: (credentials) => (encodeJSON(credentials).length + offered.length > mostOffered ? undefined : offered || undefined),
    welcomed({ state: { url } }, { schema }) {
      const theirs = pairsOf(schema);
      const names = Object.entries(fingerprints)
        .filter(([, pair]) => theirs.some((other) => other !== pair && other.startsWith(pair.slice(0, 10))))
        .map(([name]) => name)
        .sort();
      if (told || !names.length) return;
      told = true;
      queueMicrotask(() => {
        if (differs) differs(names);
        else console.warn("typedrpc: the peer's schema differs", { names: names.slice(0, mostLogged), differ: names.length, remote: url });
      });
    },
  };
}

/** The pairs of a text in base64, in hexadecimal digits. What cannot be read has none. */
function pairsOf(text: string): string[] {
  try {
    const digits = Array.from(atob(text), (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join("");
    return (digits.length % 16 === 0 && digits.match(/.{16}/g)) || [];
  } catch {
    return [];
  }
}
