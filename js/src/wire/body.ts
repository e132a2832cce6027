import { malformed, toBytes, toText } from "./text.js";

/** The bodies of the handshake's frames and of GOAWAY (PROTOCOL.md section 2.2). */

/** What a side takes of its peer (PROTOCOL.md section 4). */
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

/** The body of HELLO. */
export interface Hello {
  attempt: number;
  client: string;
  token: string | undefined;
  received: number | undefined;
  credentials: unknown;
  schema: string | undefined;
  limits: Partial<Limits>;
  features: readonly string[];
}

/** An error in the body of AUTH_OK, or of GOAWAY. */
export interface ErrorBody {
  code?: number;
  message: string;
  data?: unknown;
  fault: string;
  retryAfter: number;
}

/** All that a body of a server has. What was left out is zero or empty. */
export interface Body {
  token: string;
  resumed: boolean;
  reason: string;
  received: number;
  reply?: unknown;
  limits: Limits;
  features: readonly string[];
  keepalive: number;
  grace: number;
  expires: number;
  cache: string;
  schema: string;
  error?: ErrorBody;
  min: number;
  max: number;
}

/** What holds for a peer that announced nothing else. */
export const defaultLimits: Limits = { message: 4 << 20, calls: 1024, window: 64 << 10, budget: 8 << 20 };

const none: Body = {
  token: "",
  resumed: false,
  reason: "",
  received: 0,
  limits: { ...defaultLimits, depth: 0 } as Limits,
  features: [],
  keepalive: 0,
  grace: 0,
  expires: 0,
  cache: "",
  schema: "",
  min: 0,
  max: 0,
};
const noError: ErrorBody = { message: "", fault: "", retryAfter: 0 };

/** The bytes of a body. */
export const writeBody = (body: object): Uint8Array => toBytes(JSON.stringify(body));

/** Reads a body. What is no object, or has a member twice or of a wrong type, is malformed. */
export function readBody(payload: Uint8Array): Body {
  const text = toText(payload);
  const body = complete(none, JSON.parse(text) as Body);
  checkTwice(text);
  body.limits = complete(none.limits, body.limits);
  if (body.error) {
    body.error = complete(noError, body.error);
    if (!Number.isInteger(body.error.code ?? 0)) malformed("code");
  }
  if (body.features.length > 64 || body.features.some((name) => typeof name !== "string")) malformed("features");
  return body;
}

/** An object with what it lacks of another one, whose members say what type its own must have. */
function complete<T extends object>(like: T, object: T): T {
  if (kindOf(object) !== "object") malformed("object");
  for (const [name, value] of Object.entries(like)) {
    if (Object.hasOwn(object, name) && kindOf(object[name as keyof T]) !== kindOf(value)) malformed(name);
  }
  return { ...like, ...object };
}

/** The type of a JSON value; a number is a natural one. */
function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "array";
  if (value === null || (typeof value === "number" && !(value >= 0 && Number.isInteger(value)))) return "";
  return typeof value;
}

/** Finds a member that is there twice, in the body and in the objects whose members it knows. */
function checkTwice(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  let name = "";
  for (const [token, string, colon] of text.matchAll(/("(?:[^"\\]|\\.)*")(\s*:)?|[{}[\]]/g)) {
    const names = open.at(-1);
    if (colon && names) {
      name = JSON.parse(string!) as string;
      if (names.has(name)) malformed(name);
      names.add(name);
    } else if (token === "}" || token === "]") {
      open.pop();
    } else if (!string) {
      open.push(!open.length || (open.length === 1 && (name === "limits" || name === "error")) ? new Set() : undefined);
    }
  }
}
