// @ts-check
// Starts the page's program.
const { Go } = /** @type {any} */ (globalThis); // of wasm_exec.js
const go = new Go();
try {
  const { instance } = await WebAssembly.instantiateStreaming(fetch("page.wasm"), go.importObject);
  await go.run(instance);
  throw new Error("the page's program has ended");
} catch (error) {
  const said = /** @type {HTMLElement} */ (document.getElementById("error"));
  if (!said.textContent) said.textContent = String(error);
  said.hidden = false;
  const status = /** @type {HTMLElement} */ (document.getElementById("status"));
  status.textContent = "stopped";
  status.dataset["state"] = "closed";
}

export {};
