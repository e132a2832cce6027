// @ts-check
// Uploads, with what has arrived and whether it is what was sent.
import { RpcError } from "./typedrpc.js";

/** @import { Client } from "./api.js" */

const list = /** @type {HTMLElement} */ (document.querySelector("#uploads"));
const mega = (/** @type {number} */ bytes) => (bytes / (1 << 20)).toFixed(1);

/**
 * Lets the visitor send files.
 *
 * @param {Client} api
 * @param {() => number} resumes how often the connection has gone on over a new link
 * @param {(text: string) => void} say
 */
export function showUploads(api, resumes, say) {
  const random = /** @type {HTMLButtonElement} */ (document.querySelector("#random"));
  const input = /** @type {HTMLInputElement} */ (document.querySelector("#file"));
  random.onclick = () => send("noise", noise(16 << 20));
  input.onchange = () => {
    const [file] = input.files ?? [];
    if (file) void send(file.name, file);
    input.value = "";
  };

  /**
   * @param {string} name
   * @param {Blob} blob
   */
  async function send(name, blob) {
    const row = newRow(name, blob.size);
    const before = resumes();
    try {
      const sum = await digest(blob);
      const { signal } = row.stop;
      const receipt = await api.files.put(name, blob, { signal, progress: row.progress });
      const links = resumes() - before;
      const same = sum === receipt.sha256 && receipt.bytes === blob.size;
      row.end(
        (sum === undefined ? "The server has checked its SHA-256" : same ? "SHA-256 is the same here and there" : "NOT the same here and there") +
          `: ${receipt.sha256.slice(0, 12)}…` + (links ? ` The link was cut ${links === 1 ? "once" : `${links} times`} meanwhile.` : ""),
        sum === undefined || same,
      );
      say(`The upload of ${name} is complete.`);
    } catch (error) {
      const stopped = row.stop.signal.aborted;
      row.end(stopped ? "Stopped." : error instanceof RpcError ? error.message : String(error), stopped);
      say(`The upload of ${name} has ended.`);
    }
  }
}

/**
 * The SHA-256 of a file, by the browser and not by the client; undefined: the browser
 * does that on secure pages alone.
 *
 * @param {Blob} blob
 */
async function digest(blob) {
  if (!globalThis.isSecureContext) return undefined;
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {number} size */
function noise(size) {
  const most = 65536; // the browser makes no more at once
  return new Blob(Array.from({ length: size / most }, () => crypto.getRandomValues(new Uint8Array(most))));
}

/**
 * @param {string} name
 * @param {number} size
 */
function newRow(name, size) {
  const element = document.createElement("li");
  const title = element.appendChild(document.createElement("span"));
  title.className = "name";
  title.textContent = name;
  const button = element.appendChild(document.createElement("button"));
  button.type = "button";
  button.className = "quiet";
  button.textContent = "Stop";
  button.ariaLabel = `Stop the upload of ${name}`;
  const bar = element.appendChild(document.createElement("progress"));
  bar.max = Math.max(size, 1);
  bar.value = 0;
  bar.ariaLabel = `Upload of ${name}`;
  const said = element.appendChild(document.createElement("span"));
  said.className = "said";
  said.textContent = "Reading it…";
  list.prepend(element);
  while (list.children.length > 3) list.lastElementChild?.remove();
  const stop = new AbortController();
  button.onclick = () => stop.abort();
  /** @type {number | undefined} */
  let began;
  return {
    stop,
    /** @param {number} done */
    progress(done) {
      bar.value = done;
      began ??= performance.now();
      const rate = mega(done / Math.max((performance.now() - began) / 1000, 0.1));
      said.textContent = `${mega(done)} of ${mega(size)} MB, ${rate} MB/s`;
    },
    /**
     * @param {string} text
     * @param {boolean} good
     */
    end(text, good) {
      button.remove();
      said.textContent = text;
      said.classList.add(good ? "good" : "bad");
    },
  };
}
