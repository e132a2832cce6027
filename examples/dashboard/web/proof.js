// @ts-check
// What proves that nothing is lost: all that is sent is numbered, and whoever receives it
// looks whether a number is missing, or came before.

/** Numbers that arrive here, each one more than the one before. */
export class Numbers {
  received = 0;
  gaps = 0;
  duplicates = 0;
  /** @type {number | undefined} */
  #first;
  /** @type {number | undefined} */
  #last;
  #before = 0;

  /** What follows has nothing to do with what came. */
  begin() {
    this.#before = this.sent(0);
    this.#first = this.#last = undefined;
  }

  /** @param {number} n */
  take(n) {
    this.received++;
    this.#first ??= n;
    if (this.#last !== undefined && n <= this.#last) {
      this.duplicates++;
      return;
    }
    if (this.#last !== undefined) this.gaps += n - this.#last - 1;
    this.#last = n;
  }

  /** @param {number} n */
  has(n) {
    return this.#last !== undefined && n <= this.#last;
  }

  /**
   * How many were sent, when the sender says that newest was its latest. What has arrived
   * since it said so was sent, too.
   *
   * @param {number} newest
   */
  sent(newest) {
    if (this.#first === undefined || this.#last === undefined) return this.#before;
    return this.#before + Math.max(newest, this.#last) - this.#first + 1;
  }
}

/** @typedef {{ sent: number, received: number, gaps: number, duplicates: number }} Row */

const format = new Intl.NumberFormat("en");

/**
 * Shows a row of the ledger.
 *
 * @param {string} name
 * @param {Row} row
 */
export function showRow(name, { sent, received, gaps, duplicates }) {
  const tr = /** @type {HTMLTableRowElement} */ (document.querySelector(`[data-row="${name}"]`));
  while (tr.cells.length < 5) tr.insertCell();
  const cells = /** @type {HTMLElement[]} */ ([...tr.cells].slice(1));
  [sent, received, gaps, duplicates].forEach((n, i) => {
    const cell = /** @type {HTMLElement} */ (cells[i]);
    set(cell, format.format(n));
    if (i >= 2) cell.className = n ? "bad" : "zero";
  });
}

/**
 * Shows a number that had better be 0.
 *
 * @param {string} id
 * @param {number} n
 */
export function showZero(id, n) {
  const element = showNumber(id, n);
  element.className = n ? "bad" : "zero";
}

/**
 * @param {string} id
 * @param {number} n
 */
export function showNumber(id, n) {
  const element = /** @type {HTMLElement} */ (document.getElementById(id));
  set(element, format.format(n));
  return element;
}

/**
 * @param {HTMLElement} element
 * @param {string} text
 */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
