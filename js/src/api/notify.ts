import { type Notices, notices } from "../engine/notices.js";
import { Type } from "../wire/frame.js";
import { type CallOptions, type Caller, messageFrame } from "./call.js";
import { checkName, type types } from "./declare.js";

/** A message that has no answer: its name and its type, as both sides declare them. */
export interface Notification<Message> {
  readonly name: string;
  readonly [types]?: { readonly notification: (message: Message) => void };
}

/** Declares a message that has no answer. It throws when the name cannot be one. */
export const notification = <Message>(name: string): Notification<Message> => ({ name: checkName(name) });

/**
 * Sends a message that has no answer. Those of one connection are handled one after another, in the order in which
 * they were sent. It resolves when the message is queued, which waits while the receiver is behind.
 */
export async function notify<Message>(
  { client, ordered }: Caller,
  { name }: Notification<Message>,
  message: NoInfer<Message>,
  { signal, metadata, withoutLink = client.options.withoutLink }: Pick<CallOptions, "signal" | "metadata" | "withoutLink"> = {},
): Promise<void> {
  const frame = messageFrame(Type.Notify, name, message, metadata);
  const part: Notices = client.engine.part(notices);
  await part.send(frame, { signal, failFast: withoutLink === "fail", ordered });
}
