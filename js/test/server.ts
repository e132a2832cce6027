// A Go server in a process of its own, and a proxy to it that cuts links.
import { type ChildProcess, spawn } from "node:child_process";
import { createConnection, createServer, type Socket } from "node:net";
import { createInterface } from "node:readline";
import * as ws from "ws";
import { type ConnectOptions, type Conn, RpcError, type SocketConstructor, connect, fragments } from "../src/index.js";

export interface GoServer {
  readonly address: string;
  url(path?: string): string;
  /** Has the server do something, and returns what it says of it. */
  tell(command: string): Promise<string>;
  stop(): void;
}

/** Starts a server, which JSSERVER is the path of. */
export async function startServer(): Promise<GoServer> {
  const child: ChildProcess = spawn(process.env.JSSERVER!, process.env.VERBOSE ? [] : ["-quiet"], { stdio: ["pipe", "pipe", "inherit"] });
  const lines: string[] = [];
  const waiting: ((line: string) => void)[] = [];
  createInterface({ input: child.stdout! }).on("line", (line) => {
    const next = waiting.shift();
    if (next) next(line);
    else lines.push(line);
  });
  const read = () => new Promise<string>((resolve) => (lines.length ? resolve(lines.shift()!) : waiting.push(resolve)));
  const address = await read();
  return {
    address,
    url: (path = "/") => `ws://${address}${path}`,
    tell(command) {
      child.stdin!.write(command + "\n");
      return read();
    },
    stop() {
      child.kill();
    },
  };
}

/** Whether the host's own WebSocket is what connects, which nobody gives to the client, and not that of the package ws. */
export const own = process.env.OWN_WEBSOCKET !== undefined;
export const WebSocket = (own ? globalThis.WebSocket : ws.WebSocket) as unknown as SocketConstructor;

const opened: Conn[] = [];

/** Connects. closeAll closes what was connected. */
export function dial(url: string, options: ConnectOptions = {}): Conn {
  const conn = connect(url, { ...(own ? {} : { WebSocket }), fragments, ...options });
  opened.push(conn);
  return conn;
}

export async function closeAll(): Promise<void> {
  await Promise.all(opened.splice(0).map((conn) => conn.close()));
}

export const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** How long something may be waited for: a test that would wait for ever says where it does. */
const patience = 180_000;

/** Waits until something is so. It is looked for now and then: what passes by itself has to be counted instead. */
export async function until(what: () => unknown): Promise<void> {
  for (const end = Date.now() + patience; !(await what()); await sleep(5)) {
    if (Date.now() > end) throw new Error(`it did not come to be: ${String(what)}`);
  }
}

/** What a call fails with. */
export async function failure(promise: Promise<unknown>): Promise<RpcError> {
  try {
    await promise;
  } catch (err) {
    if (err instanceof RpcError) return err;
    throw err;
  }
  throw new Error("it did not fail");
}

/** Forwards connections to a server until they are cut. */
export class Proxy {
  /** Connections are refused. */
  down = false;
  /** Bytes are held back. */
  silent = false;
  /** Bytes after which the next connection is cut, from either side. */
  cutAfter: () => number = () => Infinity;
  cuts = 0;
  links = 0;
  readonly #sockets = new Set<Socket>();
  readonly #listener = createServer((near) => this.#forward(near));
  #address = "";

  constructor(readonly target: string) {}

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#listener.listen(0, "127.0.0.1", resolve));
    this.#address = `127.0.0.1:${(this.#listener.address() as { port: number }).port}`;
    return this;
  }

  url(path = "/"): string {
    return `ws://${this.#address}${path}`;
  }

  /** Cuts all connections that there are. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.cuts++;
  }

  stop(): void {
    this.#listener.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #forward(near: Socket): void {
    if (this.down) return void near.destroy();
    this.links++;
    const [host, port] = this.target.split(":");
    const far = createConnection(Number(port), host);
    let left = this.cutAfter();
    const pump = (from: Socket, to: Socket) => {
      this.#sockets.add(from);
      from.setNoDelay(true);
      from.on("error", () => from.destroy());
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.on("data", async (bytes) => {
        from.pause();
        while (this.silent) await sleep(5);
        if (bytes.length >= left) {
          to.write(bytes.subarray(0, left), () => {
            from.destroy();
            to.destroy();
          });
          this.cuts++;
          left = Infinity;
          return;
        }
        left -= bytes.length;
        if (to.write(bytes)) from.resume();
        else to.once("drain", () => from.resume());
      });
    };
    pump(near, far);
    pump(far, near);
  }
}
