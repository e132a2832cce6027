// A server that says what a test has it say, frame by frame.
import { type AddressInfo } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import { framesOf } from "../src/wire/decode.js";
import { encode } from "../src/wire/encode.js";
import { type Frame, Type, makeFrame } from "../src/wire/frame.js";

export interface RawServer {
  readonly url: string;
  /** The counted frames that came, of all links. */
  readonly frames: Frame[];
  /** The bodies of the HELLOs. */
  readonly hellos: Record<string, unknown>[];
  /** The codes that the client closed with. */
  readonly codes: number[];
  readonly links: Set<WebSocket>;
  /** Sends frames over every link. */
  send(...frames: Frame[]): void;
  stop(): void;
}

export const bodyOf = (body: object | string): Uint8Array => new TextEncoder().encode(typeof body === "string" ? body : JSON.stringify(body));

/** Starts one, which answers each HELLO with a WELCOME, or closes the link with a code that welcome gives instead. */
export async function startRaw(welcome: (attempt: number) => object | number = () => ({})): Promise<RawServer> {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "typedrpc.v1.json" });
  await new Promise((resolve) => server.on("listening", resolve));
  const frames: Frame[] = [];
  const hellos: Record<string, unknown>[] = [];
  const codes: number[] = [];
  let attempts = 0;
  server.on("connection", (socket) => {
    socket.on("error", () => undefined);
    socket.on("close", (code) => codes.push(code));
    socket.on("message", (data) => {
      for (const frame of framesOf(new Uint8Array(data as Buffer))) {
        if (frame.counted) frames.push(frame);
        if (frame.type === Type.Ping) socket.send(encode(makeFrame(Type.Ack, { position: frames.length })));
        if (frame.type !== Type.Hello) continue;
        hellos.push(JSON.parse(new TextDecoder().decode(frame.payload)) as Record<string, unknown>);
        const answer = welcome(++attempts);
        if (typeof answer === "number") socket.close(answer);
        else socket.send(encode(makeFrame(Type.Welcome, { payload: bodyOf({ resumed: false, features: ["resume", "streams", "fragments"], ...answer }) })));
      }
    });
  });
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    frames,
    hellos,
    codes,
    links: server.clients,
    send(...all) {
      for (const frame of all) for (const socket of server.clients) socket.send(encode(frame));
    },
    stop() {
      for (const socket of server.clients) socket.terminate();
      server.close();
    },
  };
}
