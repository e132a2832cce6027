// What the server of internal/e2e/jsserver declares.
import { bidiStream, clientStream, downloadOf, keyed, method, notification, serverStream, topic, uploadOf } from "../src/index.js";

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

export interface Report {
  count: number;
  wrong: number[];
}

export const once = method<string, number>("once", { keyed });
export const note = notification<number>("note");
export const notes = method<string, Report>("notes");
export const news = notification<string>("news");
export const push = method<{ N: number; Text?: string }, number>("push");
export const back = method<string, string>("back");
export const greet = method<string, string>("page.greet");
export const deep = method<number, number>("deep");
export const nest = method<number, number>("page.nest");

export const numbers = serverStream<{ From: number; To: number; Millis?: number }, number>("numbers", {
  restart: (request, last) => ({ ...request, From: last === undefined ? request.From : last + 1 }),
});
export const bytes = serverStream<number, Uint8Array>("bytes", { bytes: true });
export const sum = clientStream<string, number, number>("sum");
export const doubles = bidiStream<string, number, number>("doubles");
export const endless = serverStream<string, number>("endless");
export const left = method<string, number>("left");
export const pageFeed = serverStream<number, number>("page.feed");
export const pageSum = clientStream<string, number, number>("page.sum");
export const pageChat = bidiStream<string, number, number>("page.chat");
export const drive = method<{ N: number; Text: string }, string>("drive");

export const room = topic<string>("room", { presence: true, restartable: true });
export const publish = method<{ Key: string; Text: string }, number>("publish");

export const put = uploadOf<string, { name: string; size: number; sum: string }>("files.put");
export const get = downloadOf<{ Name: string; Offset?: number }>("files.get");
