import type { Client } from "../client/client.js";
import { type Handler, type Served, serving } from "../engine/serving.js";
import { RpcError, Status } from "../status.js";
import { Kind, type Metadata, noBytes } from "../wire/frame.js";
import { decodeJSON, encodeJSON } from "../wire/text.js";
import type { Conn } from "./conn.js";
import type { Method, types } from "./declare.js";
import type { Notification } from "./notify.js";
import { type BidiStream, type ClientStream, type Duplex, type ServerStream, type StreamDeclaration, duplex, encodeItem } from "./stream.js";

/** What a handler is given beside its request. It can be called back with: pass it where a connection is taken. */
export class Context {
  /** Ends when the caller gave up, its time is over, the session is lost, or the handler has returned. */
  readonly signal: AbortSignal;
  /** Texts that came beside the request. */
  readonly metadata: Metadata;
  /** Texts that go back beside the answer. */
  readonly reply: Record<string, string>;
  /** @internal */
  readonly nested = true;
  /** @internal */
  readonly ordered: boolean;
  readonly #client: Client;

  /** @internal */
  constructor(client: Client, { controller, frame, reply, ordered }: Served) {
    this.#client = client;
    this.signal = controller.signal;
    this.metadata = frame.metadata;
    this.reply = reply;
    this.ordered = ordered;
  }

  /** @internal */
  get client(): Client {
    return this.#client;
  }
}

/** A function with the declaration that it handles. It is made by the handle functions. */
export interface Handled {
  readonly [types]?: { readonly handled: true };
  /** @internal */
  readonly handlerOf: (client: Client) => Handler;
}

type Awaitable<T> = T | Promise<T>;

/** Makes a handler of any kind. */
function handled(
  { name, traits }: { name: string; traits?: { serial?: boolean | undefined } },
  kind: Kind | undefined,
  fn: (request: never, context: Context, served: Served) => Awaitable<unknown>,
): Handled {
  return {
    handlerOf: (client) => ({
      name,
      kind,
      serial: traits?.serial ?? false,
      async run(served) {
        let request: unknown;
        try {
          request = decodeJSON(served.frame.payload);
        } catch (cause) {
          throw new RpcError(Status.InvalidArgument, `cannot decode the request of ${name}`, { cause });
        }
        const result = await fn(request as never, new Context(client, served), served);
        return result === noBytes ? noBytes : encodeJSON(result);
      },
    }),
  };
}

/** Handles the calls of a method. What it throws is what the call fails with; of an error that is no RpcError nothing is told. */
export const handle = <Request, Response>(
  method: Method<Request, Response>,
  fn: (request: Request, context: Context) => Awaitable<Response>,
): Handled => handled(method, Kind.Unary, fn);

/** Handles notifications: one after another, in the order in which they were sent. */
export const handleNotification = <Message>(
  notification: Notification<Message>,
  fn: (message: Message, context: Context) => Awaitable<void>,
): Handled => handled(notification, undefined, fn);

/** Handles a stream of this side's: sends what fn yields. It is asked for the next item while the caller is not behind. */
export const handleServerStream = <Request, Item>(
  stream: ServerStream<Request, Item>,
  fn: (request: Request, context: Context) => AsyncIterable<Item> | Iterable<Item>,
): Handled =>
  handled(stream, Kind.ServerStream, async (request: Request, context, served) => {
    for await (const item of fn(request, context)) await served.stream!.send(encodeItem(item));
    return noBytes;
  });

/** Handles a stream of the caller's: fn takes its items, and returns the answer. */
export const handleClientStream = <Request, Item, Response>(
  stream: ClientStream<Request, Item, Response>,
  fn: (request: Request, items: AsyncIterable<Item>, context: Context) => Awaitable<Response>,
): Handled =>
  handled(stream, Kind.ClientStream, (request: Request, context, served) => fn(request, both<never, Item>(stream, served), context));

/** Handles a stream in both directions, which ends when fn returns. */
export const handleBidiStream = <Request, Up, Down>(
  stream: BidiStream<Request, Up, Down>,
  fn: (request: Request, stream: Duplex<Down, Up>, context: Context) => Awaitable<void>,
): Handled =>
  handled(stream, Kind.BidiStream, async (request: Request, context, served) => {
    await fn(request, both<Down, Up>(stream, served), context);
    return noBytes;
  });

const both = <Out, In>(declaration: StreamDeclaration, served: Served): Duplex<Out, In> =>
  duplex(served.stream!, declaration, (cause) => served.stream!.fail(new RpcError(Status.Canceled, "the handler gave up", { cause })));

/**
 * Has handlers take what the server calls. They replace those of the same names. Calls that come before there is
 * a handler fail: serve a connection as soon as it is made, before anything is waited for.
 */
export function serve({ client }: Conn, ...handlers: readonly Handled[]): void {
  const all = client.engine.part(serving).handlers;
  for (const { handlerOf } of handlers) {
    const handler = handlerOf(client);
    all.set(handler.name, handler);
  }
}
