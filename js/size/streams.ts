// A page of calls and streams both ways, with credentials.
import {
  bidiStream,
  call,
  clientStream,
  connect,
  fragments,
  handleServerStream,
  method,
  open,
  receive,
  sendAll,
  serve,
  serverStream,
  signIn,
} from "../src/index.js";

const multiply = method<{ a: number; b: number }, number>("math.multiply", { idempotent: true });
const ticks = serverStream<string, number>("market.ticks");
const sum = clientStream<null, number, number>("math.sum");
const chat = bidiStream<null, string, string>("chat");

const conn = connect("/rpc", { fragments, signIn: signIn(() => ({ user: "ada" })) });
serve(
  conn,
  handleServerStream(ticks, function* () {
    yield 1;
  }),
);
const stream = open(conn, chat, null);
export const all = [call(conn, multiply, { a: 3, b: 1000 }), sendAll(conn, sum, null, [1]), stream.send("x"), receive(conn, ticks, "plums")];
