// The examples of PROTOCOL.md. Tests run in the directory js.
import { readFileSync } from "node:fs";

const text = readFileSync("../PROTOCOL.md", "utf8");

export interface Example {
  language: string;
  line: number;
  body: string;
}

export const examples: Example[] = [...text.matchAll(/^```(hex|json body \w+)\n([^]*?)^```$/gm)].map((match) => ({
  language: match[1]!,
  line: text.slice(0, match.index).split("\n").length,
  body: match[2]!,
}));

/** The bytes of an example in hexadecimal digits, whose comments begin with #. */
export function hex(body: string): Uint8Array {
  const digits = body
    .split("\n")
    .map((line) => line.replace(/#.*/, ""))
    .join(" ")
    .trim();
  return Uint8Array.from(digits.split(/\s+/).map((pair) => parseInt(pair, 16)));
}
