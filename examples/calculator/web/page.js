import { connect } from "./rpc-client.js";

const $ = (id) => document.getElementById(id);

const url = new URL("rpc", location.href);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";

const rpc = connect(url, {
  // What the server may call.
  methods: { "page.confirm": ([question], signal) => confirm(question, signal) },
  onState(state) {
    $("status").dataset.state = state;
    $("status").textContent = { connecting: "connecting…", connected: "connected", waiting: "connection lost, trying again…" }[state];
    for (const button of document.querySelectorAll("#form button")) button.disabled = state !== "connected";
  },
});

// Questions are asked one at a time.
let questions = Promise.resolve();

function confirm(question, signal) {
  questions = questions.then(() => ask(question, signal));
  return questions;
}

function ask(question, signal) {
  const dialog = $("confirm");
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false);
    signal.addEventListener("abort", () => dialog.close("")); // nobody waits for the answer
    dialog.onclose = () => resolve(dialog.returnValue === "ok");
    dialog.returnValue = ""; // what the Escape key leaves
    $("question").textContent = question;
    dialog.showModal();
  });
}

let latest = 0;

// show calls a method and shows how it ended, unless a later call was begun.
async function show(method, write, x) {
  const mine = ++latest;
  const tell = (result, error) => {
    if (mine !== latest) return;
    $("result").textContent = result;
    $("error").textContent = error;
    $("error").hidden = !error;
  };
  tell("…", "");
  try {
    tell(write(await rpc.call(method, x)), "");
  } catch (error) {
    tell("", `${error.message} (code ${error.code})`);
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault(); // the browser has checked the field
  const x = $("number").valueAsNumber;
  switch (event.submitter.value) {
    case "multiply":
      return show("multiplyByOneThousand", (y) => `${x} × 1000 = ${y}`, x);
    case "root":
      return show("squareRoot", (y) => `√${x} = ${y}`, x);
  }
});

$("unknown").addEventListener("click", () => show("cubeRoot", String, 8));
