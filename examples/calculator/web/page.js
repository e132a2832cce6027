// @ts-check
import { fingerprints, newClient } from "./api.js";
import { element } from "./dom.js";
import { showState } from "./status.js";
import { RpcError, call, connect, method, schema } from "./typedrpc.js";

const number = element("number", HTMLInputElement);

const conn = connect("rpc", { schema: schema(fingerprints) }); // a page that is older than its server says so in the console
const client = newClient(conn);
client.serve({ pageConfirm: (question, { signal }) => confirm(question, signal) });

showState(conn, { status: element("status"), retry: element("retry") });
conn.onState(({ state }) => {
  for (const button of document.querySelectorAll("button")) {
    if (button.form?.id === "form") button.disabled = state !== "connected";
  }
});

// Questions are asked one at a time.
/** @type {Promise<boolean>} */
let questions = Promise.resolve(false);

/**
 * @param {string} question
 * @param {AbortSignal} signal
 */
function confirm(question, signal) {
  questions = questions.then(() => ask(question, signal));
  return questions;
}

/**
 * @param {string} question
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>}
 */
function ask(question, signal) {
  const dialog = element("confirm", HTMLDialogElement);
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false);
    signal.addEventListener("abort", () => dialog.close("")); // nobody waits for the answer
    dialog.onclose = () => resolve(dialog.returnValue === "ok");
    dialog.returnValue = ""; // what the Escape key leaves
    element("question").textContent = question;
    dialog.showModal();
  });
}

let latest = 0;

/**
 * Waits for a call and shows how it ended, unless a later one was begun.
 *
 * @param {Promise<number>} result
 * @param {(result: number) => string} write
 */
async function show(result, write) {
  const mine = ++latest;
  /** @param {string} result @param {string} error */
  const tell = (result, error) => {
    if (mine !== latest) return;
    element("result").textContent = result;
    element("error").textContent = error;
    element("error").hidden = !error;
  };
  tell("…", "");
  try {
    tell(write(await result), "");
  } catch (error) {
    tell("", error instanceof RpcError ? `${error.message} (code ${error.code})` : String(error));
  }
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault(); // the browser has checked the field
  const x = number.valueAsNumber;
  const { submitter } = event;
  if (submitter instanceof HTMLButtonElement && submitter.value === "root") {
    show(client.math.squareRoot(x), (y) => `√${x} = ${y}`);
  } else {
    show(client.math.multiply({ a: x, b: 1000 }), (y) => `${x} × 1000 = ${y}`);
  }
});

element("unknown").addEventListener("click", () => show(call(conn, method("cubeRoot"), 8), String));
