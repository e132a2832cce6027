import type { Client } from "../client/client.js";
import type { SignIn } from "../client/signin.js";
import { RpcError, Status, refuse } from "../status.js";
import { refused } from "../client/verdict.js";
import type { Timer } from "../link/socket.js";
import { writeBody } from "../wire/body.js";
import { Type, makeFrame } from "../wire/frame.js";
import { malformed } from "../wire/text.js";

/** Who the client of a connection is, with the types of its credentials and of the server's reply to them. */
export interface SignedIn<Reply> extends SignIn {
  /** What the server answered the latest credentials; undefined: it has not, or had nothing to say. */
  readonly reply: Reply | undefined;
  /**
   * Gives the server new credentials over the link that there is, or with the next one. However many ask, there is
   * one refresh at a time. It rejects with what the server says of them; the session goes on with the old ones.
   */
  refresh(): Promise<void>;
}

/** Bytes of an AUTH that leave room for the rest of its frame. */
const mostCredentials = 60 << 10;
/** A server cannot have a client refresh more often than this, in milliseconds. */
const betweenRefreshes = 250;
/** The time before the end of credentials in which refreshing them is left to the next handshake. */
const leastRefresh = 50;
/** What setTimeout takes at most. */
const mostTimeout = 2 ** 31 - 1;

/**
 * Says who the client of one connection is: an option of `connect`. present is called for the credentials whenever the
 * connection gets a link, and before those that the server has end.
 */
export function signIn<Credentials, Reply = unknown>(present: () => Credentials | Promise<Credentials>): SignedIn<Reply> {
  let client: Client | undefined;
  /** Why the connection has ended. */
  let ended: RpcError | undefined;
  let reply: Reply | undefined;
  let timer: Timer;
  let running: Promise<void> | undefined;
  /** Those who wait for the next WELCOME, and for the answer to an AUTH: undefined when the link has ended. */
  let welcomed: (() => void)[] = [];
  let answered: ((error: RpcError | undefined | "lost") => void) | undefined;

  const refresh = async (): Promise<void> => {
    if (ended) throw ended;
    if (client && !client.engine.unlinked) {
      const { engine } = client;
      const { session } = engine;
      const link = session?.link;
      if (!engine.features.includes("auth")) throw refuse(Status.Unimplemented, "the server refreshes no credentials");
      const payload = writeBody({ credentials: await present() });
      if (payload.length > mostCredentials) throw refuse(Status.InvalidArgument, "the credentials are too large");
      if (link && link === session.link && !link.cause) {
        session.control(makeFrame(Type.Auth, { payload }));
        const error = await new Promise<RpcError | undefined | "lost">((resolve) => (answered = resolve));
        if (error instanceof RpcError) throw error;
        if (!error) return;
      }
    }
    // The next handshake brings credentials.
    await new Promise<void>((resolve) => welcomed.push(resolve));
    if (ended) throw ended as RpcError;
  };
  const again = () => (running ??= refresh().finally(() => (running = undefined)));
  /** Has credentials refreshed at a random moment, so that the clients of a server do not come together. */
  const expireIn = (left: number) => {
    clearTimeout(timer);
    if (!left) return;
    const end = Date.now() + left;
    const wait = (milliseconds: number) => {
      timer = setTimeout(attempt, Math.min(milliseconds, mostTimeout));
    };
    const attempt = () => {
      const mine = timer;
      again().catch((error: unknown) => {
        if (timer !== mine || !client) return; // there are others
        client.warn(error instanceof RpcError ? error : new RpcError(Status.Unauthenticated, "no credentials", { cause: error }));
        const rest = end - Date.now();
        if (rest > leastRefresh) wait(rest / 2);
      });
    };
    wait(Math.max(betweenRefreshes, left * (0.7 + Math.random() / 5)));
  };
  const lost = () => {
    clearTimeout(timer);
    timer = undefined;
    answered?.("lost");
    answered = undefined;
  };

  return {
    get reply() {
      return reply;
    },
    refresh: again,
    present,
    welcomed(by, welcome) {
      client = by;
      reply = welcome.reply as Reply;
      by.engine.authOK = (body) => {
        if (!answered) malformed("AUTH_OK without AUTH");
        if (!body.error) {
          reply = body.reply as Reply;
          expireIn(body.expires);
        }
        answered(body.error && refused(body.error));
        answered = undefined;
      };
      expireIn(welcome.expires);
      told();
    },
    lost,
    closed(error) {
      ended = error;
      lost();
      told();
    },
  };

  /** Tells those who wait for a link. */
  function told(): void {
    for (const resolve of welcomed) resolve();
    welcomed = [];
  }
}
