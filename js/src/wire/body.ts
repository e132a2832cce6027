import { malformed, toText } from "./decode.js";
import { toBytes } from "./encode.js";

/** The bodies of the handshake's frames and of GOAWAY (PROTOCOL.md section 2.2). */

/** What a peer takes (PROTOCOL.md section 4). */
export interface Limits {
  /** Bytes in the payload of one message. */
  message: number;
  /** Calls and streams in flight. */
  calls: number;
  /** Bytes of notifications, and of a new stream, before the first credit. */
  window: number;
  /** Bytes of requests in flight, of items that are not credited, of fragments under way. */
  budget: number;
}

export interface Hello {
  attempt: number;
  client: string;
  token?: string | undefined;
  received?: number;
  credentials?: unknown;
  limits: Partial<Limits>;
  features: string[];
  cache?: string;
}

/** Any body that a server sends. */
export type Body = Welcome & AuthOK & GoAway;

export interface Welcome {
  token?: string;
  resumed?: boolean;
  reason?: string;
  received?: number;
  reply?: unknown;
  limits?: Partial<Limits>;
  features?: string[];
  keepalive?: number;
  grace?: number;
  expires?: number;
  cache?: string;
}

export interface ErrorBody {
  code?: number;
  message?: string;
  data?: unknown;
  fault?: string;
  retryAfter?: number;
}

export interface AuthOK {
  reply?: unknown;
  expires?: number;
  error?: ErrorBody;
}

export interface GoAway {
  reason?: string;
  min?: number;
  max?: number;
}

type Types = Record<string, string | null | undefined>;

/** What the members of all bodies are, by what typeName says; the others are anything. */
const types: Types = {
  __proto__: null,
  code: "number integer",
  token: "string",
  resumed: "boolean",
  reason: "string",
  received: "number",
  limits: "object",
  features: "array",
  keepalive: "number",
  grace: "number",
  expires: "number",
  cache: "string",
  error: "object",
  message: "string",
  fault: "string",
  retryAfter: "number",
  min: "number",
  max: "number",
};

const limitTypes: Types = {
  __proto__: null,
  message: "number",
  calls: "number",
  window: "number",
  budget: "number",
  depth: "number",
};

/** Reads a body; what is no object, or has a member twice or of a wrong type, is malformed. */
export function readBody(payload: Uint8Array): Body {
  const text = toText(payload);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return malformed("JSON");
  }
  checkTwice(text);
  checkMembers(body, types);
  return body as Body;
}

/** The bytes of a body. */
export const writeBody = (body: object): Uint8Array => toBytes(JSON.stringify(body));

function checkMembers(body: unknown, types: Types): void {
  if (typeName(body) !== "object") malformed("object");
  for (const [name, value] of Object.entries(body as object)) {
    const type = types[name];
    if (type && !type.split(" ").includes(typeName(value))) malformed(name);
    if (type === "array" && ((value as unknown[]).length > 64 || !(value as unknown[]).every((x) => typeof x === "string"))) {
      malformed(name);
    }
    if (name === "limits") checkMembers(value, limitTypes);
    if (name === "error") checkMembers(value, types);
  }
}

/** The type of a JSON value; "number" is a natural one. */
function typeName(value: unknown): string {
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? (value < 0 ? "integer" : "number") : "fraction";
  return value === null ? "null" : typeof value;
}

/** Finds a member that is there twice, in the body and the objects that are its own. */
function checkTwice(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  let name = "";
  for (const [token, string, colon] of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|[{}[\]]/g)) {
    const names = open.at(-1);
    if (colon && names) {
      name = JSON.parse(string!) as string;
      if (names.has(name)) malformed("a member twice");
      names.add(name);
    } else if (token === "{" || token === "[") {
      const own = !open.length || (open.length === 1 && (name === "limits" || name === "error"));
      open.push(own ? new Set() : undefined);
    } else if (token === "}" || token === "]") {
      open.pop();
    }
  }
}
