import { Close, CloseCode } from "../wire/close.js";

/** Counts what a peer may do 2,048 times at once and 1,000 times a second, and an honest one hardly does. */
export function bucket(): () => void {
  let level = 0;
  let since = Date.now();
  return () => {
    const now = Date.now();
    level = Math.max(0, level - (now - since)) + 1;
    since = now;
    if (level > 2048) throw new Close(CloseCode.Flood);
  };
}
