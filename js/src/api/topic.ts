import { isHistory } from "../engine/stream.js";
import { RpcError, Status, refuse } from "../status.js";
import type { Caller } from "./call.js";
import { checkName, type types } from "./declare.js";
import { toBytes, toText } from "../wire/text.js";
import { type ReceiveOptions, follow } from "./stream.js";

/** What a declaration says of a topic. */
export interface TopicTraits {
  /** Subscriptions go on after a gap: by themselves, with an event that says so. */
  readonly restartable?: boolean | undefined;
  /** It tells who subscribes. */
  readonly presence?: boolean | undefined;
}

/** Messages that go to everybody who has subscribed to a key. */
export interface Topic<Message> {
  readonly name: string;
  readonly traits: TopicTraits;
  readonly [types]?: { readonly topic: () => Message };
}

/** Declares a topic, as the server does. */
export const topic = <Message>(name: string, traits: TopicTraits = {}): Topic<Message> => ({ name: checkName(name), traits });

/** A message of a topic. */
export interface TopicEvent<Message> {
  readonly value: Message;
  /**
   * How many messages this subscriber lost before this one, because it was too slow or they were too large; -1: an
   * unknown number, none perhaps, because a session was lost or the server lost its broker.
   */
  readonly missed: number;
  /** It was published before the subscription began. */
  readonly history: boolean;
}

/** Somebody who subscribes to a key of a topic, or does so no more. */
export interface Member {
  /** Who it is; "": those of whom nobody knows. */
  readonly subject: string;
  /** What the server says of them, a name or a status; "": nothing. */
  readonly about: string;
  readonly left: boolean;
  /** They were there, and about is another one now. */
  readonly changed: boolean;
  /** They were there when watching began. */
  readonly history: boolean;
}

/** How many are missing: more than can be counted are an unknown number. */
const missedOf = (dropped: number): number => (dropped >= Number.MAX_SAFE_INTEGER ? -1 : dropped);

const traitsOf = (options: ReceiveOptions, traits: TopicTraits): ReceiveOptions =>
  traits.restartable ? { onGap: () => undefined, ...options } : options;

/**
 * Subscribes to a key of a topic and ranges over its messages: those that it remembers, then those that are published.
 * Leaving the loop ends the subscription. A topic that is restartable goes on after a gap: the next event has
 * missed -1, and what the topic remembers comes again.
 */
export const subscribe = <Message>(
  caller: Caller,
  { name, traits }: Topic<Message>,
  key: string,
  options: ReceiveOptions = {},
): AsyncIterableIterator<TopicEvent<Message>> =>
  follow(
    caller,
    { name, traits: {} },
    key,
    traitsOf(options, traits),
    (value: Message, about, afterGap) => ({ value, missed: afterGap ? -1 : missedOf(about.dropped), history: isHistory(about) }),
    traits.restartable ? () => key : undefined,
  );

/**
 * Ranges over those who subscribe to a key: first who is there, then everybody who comes or leaves. After a gap it
 * begins anew, with those who are there then.
 */
export function watch<Message>(
  caller: Caller,
  { name, traits }: Topic<Message>,
  key: string,
  options: ReceiveOptions = {},
): AsyncIterableIterator<Member> {
  if (!traits.presence) throw refuse(Status.FailedPrecondition, `${name} does not tell who subscribes`);
  return follow(
    caller,
    { name: `${name}.presence`, traits: {} },
    key,
    traitsOf(options, traits),
    (value: string, about) => {
      const [, kind, size, rest] = /^([+-]|[*=](\d+):)(.*)$/s.exec(value) ?? [];
      if (!kind) throw new RpcError(Status.Internal, "bad presence");
      const bytes = toBytes(rest!);
      const end = size === undefined ? bytes.length : Number(size);
      return {
        subject: toText(bytes.subarray(0, end)),
        about: toText(bytes.subarray(end)),
        left: kind === "-",
        changed: kind.startsWith("="),
        history: isHistory(about),
      };
    },
    traits.restartable ? () => key : undefined,
  );
}
