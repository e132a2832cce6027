import { connect, RESOURCE_EXHAUSTED, UNAVAILABLE } from "./rpc-client.js";

const $ = (id) => document.getElementById(id);

const url = new URL("rpc", location.href);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";

const TYPING_AGAIN = 2000; // how often others are told that somebody types …
const TYPING_LASTS = 4000; // … and how long they believe it
const MOST_LINES = 500; // in the page; the server keeps the last 50

let rpc = null; // not null: signed in, or trying to
let name = "";
let room = null; // the room that is open, see enter

// --- Signing in -----------------------------------------------------------

function signIn(as) {
  name = as;
  rpc = connect(url, { credentials: { name }, onState: (state, about) => shown(state, about) });
}

let countdown;

function shown(state, { error, delay, reply }) {
  clearInterval(countdown);
  const status = $("status");
  status.hidden = state === "closed" || state === "refused";
  status.dataset.state = state;
  $("retry").hidden = state !== "waiting";
  $("people").classList.toggle("stale", state !== "connected");
  if (state !== "connected") nobodyTypes(); // nobody would tell when they stop
  else if ($("chat-error").dataset.until === "link") tell("chat-error", "");
  switch (state) {
    case "connecting":
      status.textContent = "connecting…";
      break;
    case "connected":
      status.textContent = "connected";
      sessionStorage.name = name; // this tab's: a reload signs in again
      welcomed(reply);
      break;
    case "waiting": {
      const until = Date.now() + delay;
      const tell = () => {
        const left = Math.ceil((until - Date.now()) / 1000);
        status.textContent = left > 1 ? `connection lost, trying again in ${left} s` : "connection lost, trying again…";
      };
      tell();
      countdown = setInterval(tell, 1000);
      break;
    }
    case "refused":
      signedOut(error.message);
      break;
  }
}

function welcomed({ rooms, maxText }) {
  $("text").maxLength = maxText;
  $("sign-in").hidden = true;
  $("chat").hidden = $("me").hidden = false;
  $("my-name").textContent = name;
  if (room) return; // only the connection is new
  suggested = rooms;
  enter(roomOfPage());
  $("text").focus();
}

function signedOut(why) {
  rpc?.close();
  rpc = null;
  room?.controller.abort();
  room = null;
  delete sessionStorage.name;
  $("sign-in").hidden = false;
  $("chat").hidden = $("me").hidden = $("status").hidden = $("retry").hidden = true;
  tell("sign-in-error", why);
  $("name").focus();
}

$("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  tell("sign-in-error", "");
  rpc?.close(); // it was still trying, with another name perhaps
  signIn($("name").value.trim());
});
$("leave").addEventListener("click", () => signedOut(""));
$("retry").addEventListener("click", () => rpc.reconnect());
document.addEventListener("visibilitychange", () => document.hidden || rpc?.reconnect());

// --- Rooms ----------------------------------------------------------------

let suggested = [];

// The room is in the page's address, so that it can be sent to somebody.
function roomOfPage() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || suggested[0];
  } catch {
    return suggested[0];
  }
}
addEventListener("hashchange", () => room && roomOfPage() !== room.name && enter(roomOfPage()));

$("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = encodeURIComponent($("other-room").value.trim().toLowerCase());
  $("other-room").value = "";
});

function enter(name) {
  room?.controller.abort(); // ends its three streams, here and at the server
  const controller = new AbortController();
  const here = (room = {
    name,
    controller,
    shown: new Set(), // the ids of the messages in the page
    people: new Set(),
    typing: new Map(), // name -> timer
  });
  $("room-name").textContent = name;
  document.title = `${name} · Chat`;
  $("lines").replaceChildren();
  tell("chat-error", "");
  showRooms();
  showPeople();
  showTyping();

  const { signal } = controller;
  follow("chat.room", here, signal, () => {
    const began = { known: here.shown.size > 0, joined: false };
    $("log").ariaBusy = "true"; // history is not read aloud
    setTimeout(() => ($("log").ariaBusy = "false"), 500);
    return (event) => received(here, event, began);
  });
  follow("chat.room.presence", here, signal, () => {
    here.people.clear();
    return ({ value }) => {
      const who = value.slice(1);
      if (value[0] === "+") {
        here.people.add(who);
      } else {
        here.people.delete(who);
        stoppedTyping(here, who);
      }
      showPeople();
    };
  });
  follow("chat.typing", here, signal, () => ({ value }) => typed(here, value));
}

// follow subscribes until signal, again and again: a subscription ends with its
// connection. begin is called for each, and returns what takes the events.
async function follow(topic, here, signal, begin) {
  for (let failures = 0; !signal.aborted; ) {
    try {
      await rpc.connected();
      if (signal.aborted) return;
      const take = begin();
      for await (const event of rpc.receive(topic, here.name, { signal })) {
        failures = 0;
        take(event);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.code !== UNAVAILABLE && error.code !== RESOURCE_EXHAUSTED) {
        return tell("chat-error", error.message); // no such room, for example
      }
    }
    await new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(5000, 200 * 2 ** failures++)));
  }
}

function showRooms() {
  const names = suggested.includes(room.name) ? suggested : [...suggested, room.name];
  $("rooms").replaceChildren(
    ...names.map((name) => {
      const link = make("a", "", name);
      link.href = `#${encodeURIComponent(name)}`;
      if (name === room.name) link.ariaCurrent = "page";
      return make("li", "", link);
    }),
  );
}

function showPeople() {
  const people = [...room.people].sort((a, b) => a.localeCompare(b));
  $("count").textContent = people.length || "";
  $("people").replaceChildren(
    ...people.map((who) => make("li", hue(who), make("bdi", "", who), who === name ? " (you)" : "")),
  );
}

// --- Messages -------------------------------------------------------------

// received shows a message of a subscription. The history of a later one
// repeats what is shown already. Where it does not begin with something that
// is known, nobody can say what was missed meanwhile.
function received(here, { value: message, history, dropped }, subscription) {
  if (here.shown.has(message.id)) {
    subscription.joined = true;
    return;
  }
  if (dropped > 0) {
    gap(dropped < Number.MAX_SAFE_INTEGER ? `${dropped} ${dropped === 1 ? "message is" : "messages are"} missing here` : "messages may be missing here");
  } else if (subscription.known && !subscription.joined) {
    gap("the connection was lost: messages may be missing here");
  }
  subscription.joined = true;

  const at = new Date(message.at);
  const time = make("time", "", at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = message.at;
  time.title = at.toLocaleString();
  const head = make("div", "head", make("bdi", "from", message.from), " ", time);
  const text = make("p", "text", message.text);
  text.dir = "auto";
  const line = make("li", `message ${hue(message.from)}`, head, text);
  line.classList.toggle("mine", message.from === name);
  line.dataset.id = message.id;
  here.shown.add(message.id);
  const lines = $("lines");
  lines.append(line);
  for (; lines.children.length > MOST_LINES; lines.firstChild.remove()) here.shown.delete(lines.firstChild.dataset.id);
  if (atEnd || history || message.from === name) toEnd();
  stoppedTyping(here, message.from);
}

// The log stays at its end unless somebody reads further up.
let atEnd = true;
const toEnd = () => ($("log").scrollTop = $("log").scrollHeight);
$("log").addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = $("log");
  atEnd = scrollHeight - scrollTop - clientHeight < 80;
});
new ResizeObserver(() => atEnd && toEnd()).observe($("log"));

function gap(text) {
  $("lines").append(make("li", "gap", text));
}

async function say() {
  const text = $("text").value;
  if (!text.trim()) return;
  const to = room;
  setText("");
  tell("chat-error", "");
  lastTyped = 0;
  try {
    await rpc.call("chat.say", { room: to.name, text });
  } catch (error) {
    // It is in the box again, unless something else is there by now.
    if (room === to && !$("text").value) setText(text);
    const away = error.code === UNAVAILABLE;
    if (away && !error.notRun) tell("chat-error", `${error.message}: the message may have been sent`);
    else tell("chat-error", `Not sent: ${error.message}`, away ? "link" : "");
  }
}

$("say-form").addEventListener("submit", (event) => {
  event.preventDefault();
  say();
});
$("text").addEventListener("keydown", (event) => {
  // Enter sends, Shift-Enter is a new line, and the Enter that picks a word of
  // an input method is neither.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  say();
});

function setText(text) {
  $("text").value = text;
  fit();
}

// fit makes the box as high as its text.
function fit() {
  $("text").style.height = "auto";
  $("text").style.height = `${Math.min(160, $("text").scrollHeight + 2)}px`;
}

// --- Typing ---------------------------------------------------------------

let lastTyped = 0;

$("text").addEventListener("input", () => {
  fit();
  if (!$("text").value || Date.now() - lastTyped < TYPING_AGAIN) return;
  if (rpc.notify("chat.type", room.name)) lastTyped = Date.now();
});

function typed(here, who) {
  if (who === name) return;
  clearTimeout(here.typing.get(who));
  here.typing.set(who, setTimeout(() => stoppedTyping(here, who), TYPING_LASTS));
  showTyping();
}

function stoppedTyping(here, who) {
  clearTimeout(here.typing.get(who));
  here.typing.delete(who);
  showTyping();
}

function nobodyTypes() {
  lastTyped = 0; // and others have forgotten that this side does
  for (const who of [...(room?.typing.keys() ?? [])]) stoppedTyping(room, who);
}

function showTyping() {
  const names = [...room?.typing.keys() ?? []];
  if (names.length > 3) return $("typing").replaceChildren("several people are typing…");
  const parts = names.flatMap((who, i) => [i === 0 ? "" : i === names.length - 1 ? " and " : ", ", make("bdi", "", who)]);
  $("typing").replaceChildren(...parts, names.length === 0 ? "" : names.length === 1 ? " is typing…" : " are typing…");
}

// --- Small things ---------------------------------------------------------

// make makes an element. What it is given is inserted as text, never as HTML.
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// tell shows a text, or with "" none. One until "link" goes when there is a link again.
function tell(id, text, until = "") {
  $(id).dataset.until = until;
  $(id).textContent = text;
  $(id).hidden = !text;
}

// hue gives a name one of eight colours.
function hue(who) {
  let sum = 0;
  for (const c of who) sum = (sum * 31 + c.codePointAt(0)) % 8191;
  return `hue-${sum % 8}`;
}

if (sessionStorage.name) {
  $("name").value = sessionStorage.name;
  signIn(sessionStorage.name);
}
