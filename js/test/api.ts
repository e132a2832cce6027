// What the server of internal/e2e/jsserver declares.
import { method } from "../src/index.js";

export const multiply = method<{ A: number; B: number }, number>("math.multiply", { idempotent: true });
export const echo = method<unknown, unknown>("echo");
export const wait = method<number, string>("wait");
export const canceled = method<string, number>("canceled");
export const fail = method<{ Code: number; RetryAfter?: number }, string>("fail");
export const sell = method<number, number>("sell");
export const broken = method<string, number>("broken");
export const large = method<number, string>("large");
export const run = method<string, number>("run");
export const repeat = method<string, number>("repeat", { idempotent: true });
export const headers = method<string, Record<string, string>>("headers");
export const missing = method<null, null>("missing");
