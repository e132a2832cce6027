import { type Conn, call } from "@typedrpc/client";
import * as api from "./client.js";

declare const conn: Conn;
const client = api.newClient(conn);

// @ts-expect-error: a member is missing
export const a = client.echo.untagged({ Name: "n" });
// @ts-expect-error: a member is unknown
export const b = client.echo.untagged({ Name: "n", Count: 1, count: 1 });
// @ts-expect-error: no such value
export const c = client.echo.color("purple");
// @ts-expect-error: no such number
export const d = client.echo.kind(3);
// @ts-expect-error: null where there is no pointer
export const e = client.echo.text(null);
// @ts-expect-error: a number in place of a quoted one
export const f = client.echo.quoted({ int: 1, int64: "1", uint64: "1", float: "1", bool: "true", string: "", pointer: null, named: "1", slice: null });
// @ts-expect-error: a text that is no number
export const g = client.echo.quoted({ int: "one", int64: "1", uint64: "1", float: "1", bool: "true", string: "", pointer: null, named: "1", slice: null });
// @ts-expect-error: two numbers in place of three
export const h = client.echo.numbers([1, 2]);
// @ts-expect-error: a nil slice is null, and may not be overlooked
export const i = (await client.echo.strings(["a"])).length;
// @ts-expect-error: the answer is a number
export const j: string = await client.echo.int(1);
// @ts-expect-error: no such method
export const k = client.echo.nobody;
// @ts-expect-error: the request is of another type
export const l = call(conn, api.echoInt, "1");
// @ts-expect-error: a field that the tag leaves out
export const m = client.echo.names({ Skipped: 1 });
// @ts-expect-error: what says nothing says nothing
export const n = client.echo.list({ head: 1, tail: null });
