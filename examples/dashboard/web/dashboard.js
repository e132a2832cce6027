// @ts-check
// The page: what it counts, what it says, and the scissors.
import { RpcError, connect, fragments } from "./typedrpc.js";
import { newClient, signIn } from "./api.js";
import { showMarket } from "./market.js";
import { showNumber, showRow, showZero } from "./proof.js";
import { showState } from "./status.js";
import { showUploads } from "./upload.js";

/** @import { Book, Welcome } from "./api.js" */

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const wait = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

const name = `page-${Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
const guest = signIn(() => ({ name }));
const conn = connect("rpc", { signIn: guest, fragments, backoff: { max: 1000 } });
const api = newClient(conn);
showState(conn, { status: $("status"), retry: $("retry") });

/** What the server said last of this page. @type {Book | undefined} */
let book;
let links = 0;
let resumes = 0;
let lost = 0;
/** Numbers of what the page has sent. */
const sent = { pulse: 0, call: 0 };
/** @type {ReturnType<typeof showMarket> | undefined} */
let market;

// What happened, in words.

/**
 * @param {string} text
 * @param {"good" | "bad" | ""} mood
 */
function note(text, mood = "") {
  const li = document.createElement("li");
  const time = li.appendChild(document.createElement("time"));
  time.textContent = new Date().toLocaleTimeString("en-GB");
  const words = li.appendChild(document.createElement("span"));
  words.textContent = text;
  words.className = mood;
  $("log").prepend(li);
  while ($("log").children.length > 50) $("log").lastElementChild?.remove();
}

/** For screen readers: the latest alone, and not each of many at once. */
const say = (() => {
  let latest = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  return (/** @type {string} */ text) => {
    latest = text;
    timer ??= setTimeout(() => {
      timer = undefined;
      $("said").textContent = latest;
    }, 1000);
  };
})();

// Links come and go.

let down = 0;
conn.onState(({ state, resumed, error }) => {
  switch (state) {
    case "waiting":
      down ||= performance.now();
      break;
    case "closed":
      note(`The connection is closed: ${error?.message}`, "bad");
      break;
    case "connected": {
      links++;
      const away = Math.round(performance.now() - down);
      if (resumed) {
        resumes++;
        note(`Back after ${away} ms, in the same session.`, "good");
        say(`The link was cut ${resumes} times. ${gaps() ? `${gaps()} numbers are missing.` : "Nothing is lost."}`);
      } else if (links > 1) {
        lost++;
        // The server knows nothing of us any more: what was under way has ended, and said so.
        sent.pulse = sent.call = 0;
        note("Back, in a new session: the server was away for too long, or is another one.", "bad");
        say("The session was lost.");
      }
      if (down) market?.mark();
      down = 0;
      if (!market) begin();
    }
  }
  show();
});

/** Says for how long there has been no link, or no network, which a link may survive. */
let unplugged = 0;
addEventListener("offline", () => (unplugged = performance.now()));
addEventListener("online", () => (unplugged = 0));
setInterval(() => {
  const since = unplugged || (down && performance.now() - down > 1000 ? down : 0);
  $("offline").hidden = !since;
  if (since) $("offline").textContent = `Offline for ${Math.round((performance.now() - since) / 1000)} s. What you see is as old as that. What is under way waits, and goes on.`;
}, 250);

// The proof.

const gaps = () => (market ? market.ticks.gaps + market.trades.gaps : 0) + (book ? book.pulses.gaps + book.calls.gaps : 0);
const duplicates = () => (market ? market.ticks.duplicates + market.trades.duplicates : 0) + (book ? book.pulses.duplicates + book.calls.duplicates : 0);

function show() {
  showZero("gaps", gaps());
  showZero("duplicates", duplicates());
  showNumber("cuts", book?.cuts ?? 0);
  showNumber("resumes", resumes);
  showZero("lost", lost);
  for (const row of /** @type {const} */ (["ticks", "trades"])) {
    const numbers = market?.[row];
    if (numbers) showRow(row, { ...counts(numbers), sent: numbers.sent((row === "ticks" ? book?.tick : book?.trade) ?? 0) });
  }
  if (book) {
    showRow("pulses", { ...book.pulses, sent: Math.max(sent.pulse, book.pulses.received) });
    showRow("calls", { ...book.calls, sent: Math.max(sent.call, book.calls.received) });
  }
}
const counts = (/** @type {{ received: number, gaps: number, duplicates: number }} */ { received, gaps, duplicates }) => ({ received, gaps, duplicates });

/** Sends numbers, each one more than the one before. */
async function pulse() {
  for (;;) {
    await api.book.pulse(++sent.pulse).catch(failed);
    await wait(100);
  }
}
async function count() {
  for (;;) {
    try {
      const { cuts = 0 } = book ?? {};
      book = await api.book.count(++sent.call);
      if (book.cuts > cuts) note(`The server cut a write of ${book.torn.of} bytes after ${book.torn.written}.`);
    } catch (error) {
      failed(error);
    }
    show();
    await wait(200);
  }
}

/** @param {unknown} error */
function failed(error) {
  note(error instanceof RpcError ? `Failed, ${outcomes[error.outcome]}: ${error.message}` : String(error), "bad");
}
const outcomes = { notSent: "and it did not run", mayHaveRun: "and it may have run", answered: "says the server" };

// The scissors.

const cut = (away = 0) => api.link.cut({ away }).catch(failed);
$("cut").onclick = () => cut();
$("away").onclick = () => cut(8000);
/** @type {ReturnType<typeof setInterval> | undefined} */
let storm;
$("storm").onclick = () => {
  clearInterval(storm);
  storm = storm ? undefined : setInterval(() => conn.state.state === "connected" && cut(), 1000);
  if (storm) void cut();
  $("storm").ariaPressed = String(!!storm);
};

/** Begins, when the server has said what there is. */
function begin() {
  const { goods = [] } = /** @type {Partial<Welcome>} */ (guest.reply ?? {});
  market = showMarket(api, goods, (text) => note(text, "bad"));
  showUploads(api, () => resumes, say);
  void pulse();
  void count();
}
