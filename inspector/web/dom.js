// @ts-check
// Elements, and numbers as people read them.

/**
 * The element that has an id. It throws where there is none, or one of another type.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [type]
 * @returns {T}
 */
export function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof (type ?? HTMLElement))) throw new TypeError(`no such element: ${id}`);
  return /** @type {T} */ (found);
}

/**
 * Makes an element. What it is given is inserted as text, never as HTML.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} className
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/**
 * A button that does something.
 *
 * @param {string} text
 * @param {string} className
 * @param {() => void} act
 */
export function button(text, className, act) {
  const made = make("button", className, text);
  made.type = "button";
  made.onclick = act;
  return made;
}

/**
 * Sets a text where it has changed, so that nothing is selected or said anew.
 *
 * @param {Node} node
 * @param {string} text
 */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {number} n */
export const count = (n) => n.toLocaleString("en-GB", { maximumFractionDigits: 0 });

/**
 * A number of things.
 *
 * @param {number} n
 * @param {string} one
 * @param {string} [more]
 */
export const many = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

/** @param {number} n */
export function bytes(n) {
  if (n < 1000) return `${Math.round(n)} B`;
  for (const unit of ["kB", "MB", "GB"]) {
    n /= 1000;
    if (n < 1000 || unit === "GB") return `${n < 10 ? n.toFixed(1) : Math.round(n)} ${unit}`;
  }
  return "";
}

/**
 * A time span, roughly.
 *
 * @param {number} milliseconds
 */
export function span(milliseconds) {
  const s = Math.max(milliseconds, 0) / 1000;
  if (s > 0 && s < 0.001) return `${Math.round(s * 1e6)} µs`;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

/**
 * A time of day.
 *
 * @param {number} at Unix time in milliseconds
 */
export function clock(at) {
  const d = new Date(at);
  return `${d.toLocaleTimeString("en-GB")}.${String(d.getMilliseconds()).padStart(3, "0")}`;
}

/**
 * What there is to say where nothing is shown.
 *
 * @param {string} title
 * @param {string} text
 * @param {...Node} more
 */
export const nothing = (title, text, ...more) => make("div", "nothing", make("strong", "", title), make("p", "", text), ...more);

/**
 * A table whose rows are kept: those of a key that is there again are only told anew.
 *
 * @template Row
 * @param {string} caption
 * @param {[name: string, className?: string, title?: string][]} columns
 * @param {(row: Row) => string} keyOf
 * @param {(row: Row, cells: HTMLTableCellElement[], made: boolean, tr: HTMLTableRowElement) => void} fill
 */
export function table(caption, columns, keyOf, fill) {
  const head = make("tr", "");
  for (const [name, className, title] of columns) {
    const th = make("th", className ?? "", name);
    th.scope = "col";
    if (title) th.title = title;
    head.append(th);
  }
  const body = make("tbody", "");
  const node = make("table", "", make("caption", "hidden", caption), make("thead", "", head), body);
  /** @type {Map<string, HTMLTableRowElement>} */
  let rows = new Map();
  return {
    node,
    /** @param {Row[]} all */
    show(all) {
      /** @type {Map<string, HTMLTableRowElement>} */
      const now = new Map();
      let at = body.firstElementChild;
      for (const row of all) {
        const key = keyOf(row);
        const old = rows.get(key);
        const tr = old ?? make("tr", "", ...columns.map(([, className]) => make("td", className ?? "")));
        fill(row, [...tr.cells], !old, tr);
        now.set(key, tr);
        if (tr === at) at = at.nextElementSibling;
        else body.insertBefore(tr, at);
      }
      for (const [key, tr] of rows) if (!now.has(key)) tr.remove();
      rows = now;
    },
  };
}
