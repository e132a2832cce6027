// @ts-check
// Topics: who subscribes, and what is lost.
import { rate } from "./chart.js";
import { bytes, count, make, many, nothing, table, write } from "./dom.js";
import { follow } from "./follow.js";

/** @import { App } from "./app.js" */
/** @import { Key, Keys } from "./api.js" */

/**
 * @param {HTMLElement} root
 * @param {App} app
 */
export function topics(root, app) {
  const filter = make("input", "");
  filter.type = "search";
  filter.placeholder = "Topic or key";
  filter.ariaLabel = "Filter by topic or key";
  const sums = make("p", "hint");
  /** @type {Map<string, ReturnType<typeof rate>>} */
  const rates = new Map();
  /** @param {Key} k */
  const keyOf = (k) => `${k.hub}\n${k.topic}\n${k.key}`;
  let at = 0;
  const rows = table(
    "Keys of topics",
    [["Topic"], ["Key"], ["Subscribers", "n"], ["Members", "n", "Subjects that subscribe at this server"], ["Onlookers", "n", "Who watch who is there"], ["History", "n"], ["Messages", "n"], ["Per second", "n"], ["Dropped", "n", "Messages that slow subscribers were not given"], ["Too slow", "n", "Subscribers that were ended for it"]],
    keyOf,
    (k, cells) => {
      const per = rates.get(keyOf(k)) ?? rate();
      rates.set(keyOf(k), per);
      const texts = [k.topic, k.key || "(empty)", k.listeners ? `${count(k.subscribers)} + ${count(k.listeners)} here` : count(k.subscribers), count(k.members), count(k.onlookers), k.history ? `${count(k.history)} · ${bytes(k.bytes)}` : "–", count(k.messages), count(per(at, k.messages)), count(k.dropped), count(k.slow)];
      texts.forEach((text, i) => {
        const cell = cells[i];
        if (cell) write(cell, text);
      });
      cells[8]?.classList.toggle("warn", k.dropped > 0);
      cells[9]?.classList.toggle("warn", k.slow > 0);
    },
  );
  const scroll = make("div", "scroll", rows.node);
  scroll.tabIndex = 0;
  scroll.role = "region";
  scroll.ariaLabel = "Table of keys";
  const empty = make("div", "");
  root.append(make("div", "tools", filter, sums), empty, scroll);

  /** @param {Keys} keys */
  const show = (keys) => {
    at = keys.at;
    write(sums, `${many(keys.all, "key")}, ${many(keys.subscribers, "subscriber")}, ${bytes(keys.history)} of history${keys.found > keys.rows.length ? `; the ${count(keys.rows.length)} of ${count(keys.found)} with the most subscribers` : ""}`);
    scroll.hidden = keys.rows.length === 0;
    if (keys.rows.length > 0) empty.replaceChildren();
    else if (keys.all > 0) empty.replaceChildren(nothing("Nothing like that", "No topic and no key contains this text."));
    else empty.replaceChildren(nothing("Nobody subscribes", "Keys are shown while somebody subscribes to them, or while their history is kept."));
    rows.show(keys.rows);
    const there = new Set(keys.rows.map(keyOf));
    for (const key of rates.keys()) if (!there.has(key)) rates.delete(key);
  };
  let stop = () => {};
  const again = () => {
    stop();
    if (!app.welcome().topics) {
      scroll.hidden = true;
      empty.replaceChildren(nothing("No hubs to look at", "The program did not give the inspector its hubs: Handler.Hubs names them."));
      return;
    }
    stop = follow(app, (options) => app.api.inspector.topics({ text: filter.value.trim() }, options), show, (error) => empty.replaceChildren(nothing("That did not work", error.message)));
  };
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let later;
  filter.oninput = () => {
    clearTimeout(later);
    later = setTimeout(again, 200);
  };
  return { show: again, hide: () => stop() };
}
