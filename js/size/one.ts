// A page of one call.
import { call, connect, method } from "../src/index.js";

const multiply = method<{ a: number; b: number }, number>("math.multiply", { idempotent: true });
const conn = connect("/rpc");
call(conn, multiply, { a: 3, b: 1000 }).then((product) => (document.title = String(product)));
