/* eslint-disable @typescript-eslint/no-misused-spread, @typescript-eslint/no-unsafe-call, @typescript-eslint/no-unsafe-class-instance-assignment -- wrong on purpose */
// Calls that must not compile: tsc fails when one of them does. Nothing here runs.
import {
  type Conn,
  type Context,
  type Handled,
  bidiStream,
  call,
  clientStream,
  connect,
  handle,
  handleServerStream,
  method,
  notification,
  notify,
  open,
  receive,
  sendAll,
  serve,
  serverStream,
  subscribe,
  topic,
  uploadOf,
  upload,
  watch,
} from "../src/index.js";

const multiply = method<{ a: number; b: number }, number>("math.multiply");
const news = notification<string>("news");
const ticks = serverStream<string, number>("ticks");
const sum = clientStream<null, number, string>("sum");
const chat = bidiStream<null, string, number>("chat");
const room = topic<{ text: string }>("room");
const put = uploadOf<string, number>("put");

export async function wrong(conn: Conn, context: Context): Promise<void> {
  // @ts-expect-error: a member of the request is missing
  await call(conn, multiply, { a: 1 });
  // @ts-expect-error: a member of the request has another type
  await call(conn, multiply, { a: 1, b: "2" });
  // @ts-expect-error: the request has a member too many
  await call(conn, multiply, { a: 1, b: 2, c: 3 });
  // @ts-expect-error: there is no request
  await call(conn, multiply);
  // @ts-expect-error: the answer has another type
  const text: string = await call(conn, multiply, { a: 1, b: 2 });
  // @ts-expect-error: a stream is no method
  await call(conn, ticks, "plums");
  // @ts-expect-error: a notification is no method
  await call(conn, news, "x");
  // @ts-expect-error: no connection is an object that looks like one
  await call({ ...conn }, multiply, { a: 1, b: 2 });
  // @ts-expect-error: there is no such option
  await call(conn, multiply, { a: 1, b: 2 }, { deadline: 1 });
  // @ts-expect-error: there are two ways to do without a link
  await call(conn, multiply, { a: 1, b: 2 }, { withoutLink: "hope" });
  // @ts-expect-error: a timeout is a number of milliseconds
  await call(conn, multiply, { a: 1, b: 2 }, { timeout: "1s" });
  // @ts-expect-error: metadata are texts
  await call(conn, multiply, { a: 1, b: 2 }, { metadata: { a: 1 } });
  // @ts-expect-error: the message has another type
  await notify(conn, news, 1);
  // @ts-expect-error: the items are numbers
  for await (const item of receive(conn, ticks, "plums")) item.toUpperCase();
  // @ts-expect-error: the request of a stream has another type
  receive(conn, ticks, 1);
  // @ts-expect-error: a method is no stream
  receive(conn, multiply, { a: 1, b: 2 });
  // @ts-expect-error: the items that are sent are numbers
  await sendAll(conn, sum, null, ["1"]);
  // @ts-expect-error: the answer of a stream has another type
  const total: number = await sendAll(conn, sum, null, [1]);
  // @ts-expect-error: what goes up are texts
  await open(conn, chat, null).send(1);
  // @ts-expect-error: what comes down are numbers
  for await (const item of open(conn, chat, null)) item.toUpperCase();
  // @ts-expect-error: a message of a topic has another type
  for await (const event of subscribe(conn, room, "lobby")) event.value.toUpperCase();
  // @ts-expect-error: a key is a text
  watch(conn, room, 1);
  // @ts-expect-error: a source is bytes, and no text
  await upload(conn, put, "x", 1);
  // @ts-expect-error: the answer of a handler has another type
  serve(conn, handle(multiply, () => "1"));
  // @ts-expect-error: the request of a handler has another type
  serve(conn, handle(multiply, (request: string) => request.length));
  // @ts-expect-error: the items of a handler have another type
  serve(conn, handleServerStream(ticks, () => ["1"]));
  // @ts-expect-error: a function is no handler
  serve(conn, () => 1);
  // @ts-expect-error: who handles calls back, and serves nothing
  serve(context, handle(multiply, () => 1));
  // @ts-expect-error: a state is read
  conn.state.failed = 1;
  // @ts-expect-error: there is no such state
  if (conn.state.state === "broken") return;
  // @ts-expect-error: there is no such trait
  method("x", { idempotence: true });
  // @ts-expect-error: there is no such limit
  connect("/rpc", { limits: { patience: 1 } });
  // @ts-expect-error: nobody makes a handler but the handle functions
  const handled: Handled = { name: "x" };
  void [text, total, handled];
}

/** What must compile. */
export async function right(conn: Conn, context: Context): Promise<number> {
  const answers: number[] = [await call(conn, multiply, { a: 1, b: 2 }), await call(context, multiply, { a: 1, b: 2 }, { timeout: 1 })];
  for await (const tick of receive(conn, ticks, "plums")) answers.push(tick);
  for await (const { value, missed } of subscribe(conn, room, "lobby")) answers.push(value.text.length, missed);
  const total: string = await sendAll(conn, sum, null, [1, 2]);
  return answers.length + total.length;
}
