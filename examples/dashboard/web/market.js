// @ts-check
// The market: a chart and a table, fed by a stream and a topic.
import { RpcError } from "./typedrpc.js";
import { Chart } from "./chart.js";
import { closed } from "./api.js";
import { Numbers } from "./proof.js";

/** @import { Client, Market, Tick, Trade } from "./api.js" */

const seconds = 60;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const price = (/** @type {number} */ cents) => (cents / 100).toFixed(2);

const section = /** @type {HTMLElement} */ (document.querySelector("#market"));
const nothing = /** @type {HTMLElement} */ (document.querySelector("#nothing"));
const table = /** @type {HTMLTableSectionElement} */ (document.querySelector("#prices"));

/**
 * Shows a market, and another one when the visitor chooses it.
 *
 * @param {Client} api
 * @param {readonly string[]} goods
 * @param {(text: string) => void} told is told of what is missing
 */
export function showMarket(api, goods, told) {
  const ticks = new Numbers();
  const trades = new Numbers();
  const chart = new Chart(/** @type {HTMLElement} */ (document.querySelector("#chart")), [...goods], seconds);
  const rows = goods.map((good, i) => newRow(good, i, (shown) => chart.show(i, shown)));
  table.replaceChildren(...rows.map((row) => row.element));
  /** @type {AbortController | undefined} */
  let shown;

  /** @param {Tick} tick */
  const tick = ({ n, at, prices }) => {
    ticks.take(n);
    chart.add(at / 1000, prices.map((cents) => cents / 100));
    rows.forEach((row, i) => row.quote(prices[i] ?? 0, chart.ends(i)[0] ?? 0));
    show("live");
  };
  /** @param {Trade} trade */
  const trade = ({ n, at, good, price, amount }) => {
    trades.take(n);
    rows[good]?.sold(price, amount, at);
  };

  /** @param {Market} market */
  const open = async (market) => {
    shown?.abort();
    const { signal } = (shown = new AbortController());
    for (const numbers of [ticks, trades]) numbers.begin();
    for (const row of rows) row.clear();
    chart.clear();
    show("empty", market === "fruit" ? "Waiting for the first prices…" : "Nobody has traded here yet. Prices appear with the first trade.");
    const onGap = (/** @type {RpcError} */ error) => told(`The session was lost: ${error.message}`);
    const follow = async () => {
      const restart = (/** @type {any} */ from, /** @type {Tick | undefined} */ last) => (last ? { ...from, after: last.n } : from);
      for await (const item of api.market.ticks({ market, seconds }, { signal, onGap, restart })) tick(item);
    };
    const listen = async () => {
      for await (const { value, history } of api.market.trades(market, { signal })) {
        // After a gap the topic tells again what it remembers.
        if (!(history && trades.has(value.n))) trade(value);
      }
    };
    try {
      await Promise.all([follow(), listen()]);
    } catch (error) {
      if (signal.aborted) return; // another market was chosen
      shown.abort();
      const hours = closed.from(error);
      const again = document.createElement("button");
      again.textContent = "Try again";
      again.onclick = () => open(market);
      show("error", hours ? `This market is closed. It opens ${hours.opens}.` : String(error), again);
    }
  };
  for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("[name=market]"))) {
    input.onchange = () => open(/** @type {Market} */ (input.value));
    if (input.checked) void open(/** @type {Market} */ (input.value));
  }
  return { ticks, trades, mark: () => chart.mark() };
}

/**
 * Shows the market, or why there is nothing to be seen.
 *
 * @param {"live" | "empty" | "error"} state
 * @param {string} [text]
 * @param {HTMLElement[]} more
 */
function show(state, text = "", ...more) {
  if (section.dataset["state"] === state && state === "live") return;
  section.dataset["state"] = state;
  const p = document.createElement("p");
  p.textContent = text;
  nothing.replaceChildren(...(text ? [p] : []), ...more);
}

/**
 * A row of the table.
 *
 * @param {string} good
 * @param {number} hue
 * @param {(shown: boolean) => void} choose
 */
function newRow(good, hue, choose) {
  const element = document.createElement("tr");
  const name = element.appendChild(document.createElement("th"));
  name.scope = "row";
  const button = name.appendChild(document.createElement("button"));
  button.type = "button";
  button.className = `hue-${hue}`;
  button.textContent = good;
  button.title = "Show or hide its line";
  button.ariaPressed = "true";
  button.onclick = () => {
    const shown = button.ariaPressed !== "true";
    button.ariaPressed = String(shown);
    choose(shown);
  };
  const [now, change, times, pounds, latest] = Array.from({ length: 5 }, () => element.insertCell());
  for (const cell of [pounds, latest]) if (cell) cell.className = "wide";
  let sales = 0;
  let sum = 0;
  const set = (/** @type {HTMLElement | undefined} */ cell, /** @type {string} */ text) => {
    if (cell && cell.textContent !== text) cell.textContent = text;
  };
  return {
    element,
    clear() {
      sales = sum = 0;
      for (const cell of [now, change, times, pounds, latest]) set(cell, "–");
    },
    /**
     * @param {number} cents
     * @param {number} before
     */
    quote(cents, before) {
      set(now, price(cents));
      const percent = before ? ((cents / 100 - before) / before) * 100 : 0;
      const up = percent >= 0;
      set(change, `${up ? "▲" : "▼"} ${Math.abs(percent).toFixed(1)} %`);
      if (change) change.className = up ? "up" : "down";
    },
    /**
     * @param {number} cents
     * @param {number} amount
     * @param {number} at
     */
    sold(cents, amount, at) {
      sales++;
      sum += amount;
      set(times, String(sales));
      set(pounds, String(sum));
      set(latest, `${amount} at ${price(cents)}, ${new Date(at).toLocaleTimeString("en-GB")}`);
      if (!calm.matches) times?.animate([{ backgroundColor: "color-mix(in srgb, var(--blue) 30%, transparent)" }, {}], 500);
    },
  };
}
