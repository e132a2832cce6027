// @ts-check
import { newClient, signIn as present } from "./api.js";
import { element, make } from "./dom.js";
import { showState } from "./status.js";
import { Code, RpcError, connect } from "./typedrpc.js";

/** @import { Client, Message } from "./api.js" */
/** @import { Member, TopicEvent } from "./typedrpc.js" */

const TYPING_AGAIN = 2000; // how often others are told that somebody types …
const TYPING_LASTS = 4000; // … and how long they believe it
const MOST_LINES = 500; // in the page; the server keeps the last 50

const text = element("text", HTMLTextAreaElement);
const nameField = element("name", HTMLInputElement);
const log = element("log");

/** @type {{ name: string, client: Client, unshow(): void } | undefined} Who is signed in, or tries to be. */
let me;
/** @type {Room | undefined} The room that is open, see enter. */
let room;

/**
 * @typedef {object} Room
 * @property {string} name
 * @property {AbortController} controller Ends its subscriptions.
 * @property {Set<string>} shown The ids of the messages in the page.
 * @property {boolean} torn The messages that come next are to follow those that are shown.
 * @property {Set<string>} people
 * @property {Map<string, ReturnType<typeof setTimeout>>} typing
 */

// --- Signing in -----------------------------------------------------------

/** @param {string} name */
function signIn(name) {
  const who = present(() => ({ name }));
  const conn = connect("rpc", { signIn: who });
  const unshow = showState(conn, { status: element("status"), retry: element("retry") });
  const mine = (me = { name, client: newClient(conn), unshow });
  element("status").hidden = false;
  conn.onState(({ state, error }) => {
    if (me !== mine) return; // another name by now
    element("people").classList.toggle("stale", state !== "connected");
    if (state !== "connected") nobodyTypes(); // nobody would tell when they stop
    else if (element("chat-error").dataset["until"] === "link") tell("chat-error", "");
    if (state === "closed") signedOut(error?.message ?? "");
    if (state === "connected" && who.reply) {
      sessionStorage.setItem("name", name); // this tab's: a reload signs in again
      welcomed(who.reply);
    }
  });
}

/** @param {NonNullable<ReturnType<typeof present>["reply"]>} welcome */
function welcomed({ rooms, maxText }) {
  text.maxLength = maxText;
  element("sign-in").hidden = true;
  element("chat").hidden = element("me").hidden = false;
  element("my-name").textContent = me?.name ?? "";
  if (room) return; // only the connection is new
  suggested = rooms;
  enter(roomOfPage());
  text.focus();
}

/** @param {string} why */
function signedOut(why) {
  leave();
  room?.controller.abort();
  room = undefined;
  sessionStorage.removeItem("name");
  element("sign-in").hidden = false;
  element("chat").hidden = element("me").hidden = element("status").hidden = element("retry").hidden = true;
  tell("sign-in-error", why);
  nameField.focus();
}

function leave() {
  me?.unshow();
  me?.client.conn.close();
  me = undefined;
}

element("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  tell("sign-in-error", "");
  leave(); // it was still trying, with another name perhaps
  signIn(nameField.value.trim());
});
element("leave").addEventListener("click", () => signedOut(""));

// --- Rooms ----------------------------------------------------------------

/** @type {string[]} */
let suggested = [];

// The room is in the page's address, so that it can be sent to somebody.
function roomOfPage() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || suggested[0] || "";
  } catch {
    return suggested[0] ?? "";
  }
}
addEventListener("hashchange", () => room && roomOfPage() !== room.name && enter(roomOfPage()));

const otherRoom = element("other-room", HTMLInputElement);
element("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = encodeURIComponent(otherRoom.value.trim().toLowerCase());
  otherRoom.value = "";
});

/** @param {string} name */
function enter(name) {
  room?.controller.abort(); // ends its three subscriptions, here and at the server
  if (!me) return;
  const { chat } = me.client;
  const controller = new AbortController();
  /** @type {Room} */
  const here = (room = { name, controller, shown: new Set(), torn: false, people: new Set(), typing: new Map() });
  element("room-name").textContent = name;
  document.title = `${name} · Chat`;
  element("lines").replaceChildren();
  tell("chat-error", "");
  showRooms();
  showPeople();
  showTyping();
  quietly();

  const { signal } = controller;
  const onGap = () => {
    here.people.clear(); // who is there is told anew
    showPeople();
  };
  follow(chat.room(name, { signal }), here, (event) => received(here, event));
  follow(chat.room.presence(name, { signal, onGap }), here, (member) => moved(here, member));
  follow(chat.typing(name, { signal }), here, ({ value }) => typed(here, value));
}

/**
 * Takes what comes until the room is left. Lost links are not seen here.
 *
 * @template Event
 * @param {AsyncIterable<Event>} events
 * @param {Room} here
 * @param {(event: Event) => void} take
 */
async function follow(events, here, take) {
  try {
    for await (const event of events) take(event);
  } catch (error) {
    if (!here.controller.signal.aborted) tell("chat-error", said(error)); // no such room, for example
  }
}

/** History is not read aloud. */
function quietly() {
  log.ariaBusy = "true";
  setTimeout(() => (log.ariaBusy = "false"), 500);
}

function showRooms() {
  const name = room?.name ?? "";
  const names = suggested.includes(name) ? suggested : [...suggested, name];
  element("rooms").replaceChildren(
    ...names.map((other) => {
      const link = make("a", "", other);
      link.href = `#${encodeURIComponent(other)}`;
      if (other === name) link.ariaCurrent = "page";
      return make("li", "", link);
    }),
  );
}

/**
 * @param {Room} here
 * @param {Member} member
 */
function moved(here, { subject, left }) {
  if (left) {
    here.people.delete(subject);
    stoppedTyping(here, subject);
  } else {
    here.people.add(subject);
  }
  showPeople();
}

function showPeople() {
  const people = [...(room?.people ?? [])].sort((a, b) => a.localeCompare(b));
  element("count").textContent = String(people.length || "");
  element("people").replaceChildren(...people.map((who) => make("li", hue(who), make("bdi", "", who), who === me?.name ? " (you)" : "")));
}

// --- Messages -------------------------------------------------------------

/**
 * Shows a message. When a session is lost the history comes again, with what is shown
 * already; where it does not begin with that, nobody can say what was missed meanwhile.
 *
 * @param {Room} here
 * @param {TopicEvent<Message>} event
 */
function received(here, { value: message, history, missed }) {
  if (missed < 0) {
    here.torn = here.shown.size > 0;
    quietly();
  }
  if (here.shown.has(message.id)) {
    here.torn = false;
    return;
  }
  if (missed > 0) gap(`${missed} ${missed === 1 ? "message is" : "messages are"} missing here`);
  else if (here.torn) gap("the connection was lost: messages may be missing here");
  here.torn = false;

  const at = new Date(message.at);
  const time = make("time", "", at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = message.at;
  time.title = at.toLocaleString();
  const head = make("div", "head", make("bdi", "from", message.from), " ", time);
  const body = make("p", "text", message.text);
  body.dir = "auto";
  const line = make("li", `message ${hue(message.from)}`, head, body);
  const mine = message.from === me?.name;
  line.classList.toggle("mine", mine);
  line.dataset["id"] = message.id;
  here.shown.add(message.id);
  append(here, line);
  if (atEnd || history || mine) toEnd();
  stoppedTyping(here, message.from);
}

/**
 * @param {Room} here
 * @param {HTMLElement} line
 */
function append(here, line) {
  const lines = element("lines");
  lines.append(line);
  while (lines.children.length > MOST_LINES) {
    const first = /** @type {HTMLElement} */ (lines.firstElementChild);
    here.shown.delete(first.dataset["id"] ?? "");
    first.remove();
  }
}

// The log stays at its end unless somebody reads further up.
let atEnd = true;
const toEnd = () => (log.scrollTop = log.scrollHeight);
log.addEventListener("scroll", () => (atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80));
new ResizeObserver(() => atEnd && toEnd()).observe(log);

/** @param {string} text */
function gap(text) {
  element("lines").append(make("li", "gap", text));
}

async function say() {
  const words = text.value;
  const to = room;
  if (!me || !to || !words.trim()) return;
  setText("");
  tell("chat-error", "");
  lastTyped = 0;
  try {
    await me.client.chat.say({ room: to.name, text: words }, { withoutLink: "fail" });
  } catch (error) {
    // It is in the box again, unless something else is there by now.
    if (room === to && !text.value) setText(words);
    const away = error instanceof RpcError && error.code === Code.Unavailable && error.outcome === "notSent";
    if (away) tell("chat-error", "Not sent: not connected", "link");
    else if (error instanceof RpcError && error.outcome === "mayHaveRun") tell("chat-error", `${said(error)}: the message may have been sent`);
    else tell("chat-error", `Not sent: ${said(error)}`);
  }
}

element("say-form").addEventListener("submit", (event) => {
  event.preventDefault();
  say();
});
text.addEventListener("keydown", (event) => {
  // Enter sends, Shift-Enter is a new line, and the Enter that picks a word of
  // an input method is neither.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say();
});

/** @param {string} words */
function setText(words) {
  text.value = words;
  fit();
}

/** Makes the box as high as its text. */
function fit() {
  text.style.height = "auto";
  text.style.height = `${Math.min(160, text.scrollHeight + 2)}px`;
}

// --- Typing ---------------------------------------------------------------

let lastTyped = 0;

text.addEventListener("input", () => {
  fit();
  if (!me || !room || !text.value || Date.now() - lastTyped < TYPING_AGAIN) return;
  const now = (lastTyped = Date.now());
  me.client.chat.type(room.name, { withoutLink: "fail" }).catch(() => {
    if (lastTyped === now) lastTyped = 0; // nobody was told
  });
});

/**
 * @param {Room} here
 * @param {string} who
 */
function typed(here, who) {
  if (who === me?.name) return;
  clearTimeout(here.typing.get(who));
  here.typing.set(who, setTimeout(() => stoppedTyping(here, who), TYPING_LASTS));
  showTyping();
}

/**
 * @param {Room} here
 * @param {string} who
 */
function stoppedTyping(here, who) {
  clearTimeout(here.typing.get(who));
  here.typing.delete(who);
  showTyping();
}

function nobodyTypes() {
  lastTyped = 0; // and others have forgotten that this side does
  if (!room) return;
  for (const who of [...room.typing.keys()]) stoppedTyping(room, who);
}

function showTyping() {
  const names = [...(room?.typing.keys() ?? [])];
  if (names.length > 3) return element("typing").replaceChildren("several people are typing…");
  const parts = names.flatMap((who, i) => [i === 0 ? "" : i === names.length - 1 ? " and " : ", ", make("bdi", "", who)]);
  element("typing").replaceChildren(...parts, names.length === 0 ? "" : names.length === 1 ? " is typing…" : " are typing…");
}

// --- Small things ---------------------------------------------------------

/** @param {unknown} error */
const said = (error) => (error instanceof Error ? error.message : String(error));

/**
 * Shows a text, or with "" none. One until "link" goes when there is a link again.
 *
 * @param {string} id
 * @param {string} text
 */
function tell(id, text, until = "") {
  const at = element(id);
  at.dataset["until"] = until;
  at.textContent = text;
  at.hidden = !text;
}

/**
 * Gives a name one of eight colours.
 *
 * @param {string} who
 */
function hue(who) {
  let sum = 0;
  for (const c of who) sum = (sum * 31 + (c.codePointAt(0) ?? 0)) % 8191;
  return `hue-${sum % 8}`;
}

const known = sessionStorage.getItem("name");
if (known) {
  nameField.value = known;
  signIn(known);
}
