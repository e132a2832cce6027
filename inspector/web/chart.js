// @ts-check
// Small charts: the last two minutes of a number.

const space = "http://www.w3.org/2000/svg";
const width = 120;
const height = 28;
const seconds = 120;

/**
 * A chart. A second without a number is a gap.
 *
 * @param {string} label what is drawn, for those who do not see it
 */
export function spark(label) {
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "spark");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${label}, the last two minutes`);
  const area = document.createElementNS(space, "path");
  area.setAttribute("class", "area");
  const line = document.createElementNS(space, "path");
  line.setAttribute("class", "line");
  svg.append(area, line);
  /** @type {{ at: number, value: number }[]} */
  const points = [];
  return {
    node: svg,
    /**
     * @param {number} at Unix time in milliseconds
     * @param {number} value
     */
    add(at, value) {
      points.push({ at, value });
      while (points.length > 1 && /** @type {{ at: number }} */ (points[0]).at < at - (seconds + 2) * 1000) points.shift();
      const most = Math.max(...points.map(({ value }) => value), 1e-9);
      /** @param {{ at: number, value: number }} p */
      const place = (p) => [width - ((at - p.at) / 1000 / seconds) * width, height - 2 - (p.value / most) * (height - 5)];
      let drawn = "";
      let filled = "";
      let begun = 0;
      let last = 0;
      points.forEach((p, i) => {
        const [x = 0, y = 0] = place(p);
        const gap = i === 0 || p.at - last > 5000;
        if (gap && i > 0) filled += `L${(width - ((at - last) / 1000 / seconds) * width).toFixed(1)} ${height}Z`;
        if (gap) begun = x;
        drawn += `${gap ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
        filled += gap ? `M${begun.toFixed(1)} ${height}L${x.toFixed(1)} ${y.toFixed(1)}` : `L${x.toFixed(1)} ${y.toFixed(1)}`;
        last = p.at;
      });
      line.setAttribute("d", drawn);
      area.setAttribute("d", `${filled}L${width} ${height}Z`);
    },
  };
}

/**
 * A number with its chart.
 *
 * @param {string} name
 * @param {string} [title]
 */
export function tile(name, title) {
  const chart = spark(name);
  const node = document.createElement("div");
  node.className = "tile";
  const dt = document.createElement("dt");
  dt.textContent = name;
  if (title) dt.title = title;
  const value = document.createElement("dd");
  const note = document.createElement("dd");
  note.className = "note";
  const drawn = document.createElement("dd");
  drawn.className = "drawn";
  drawn.append(chart.node);
  node.append(dt, value, drawn, note);
  return {
    node,
    /**
     * @param {number} at
     * @param {number} n
     * @param {string} text
     * @param {string} [more]
     */
    add(at, n, text, more = "") {
      if (value.textContent !== text) value.textContent = text;
      if (note.textContent !== more) note.textContent = more;
      chart.add(at, n);
    },
  };
}

/** Makes a rate of a number that only grows. */
export function rate() {
  let at = 0;
  let last = 0;
  /**
   * @param {number} now Unix time in milliseconds
   * @param {number} value
   */
  return (now, value) => {
    const per = at && now > at ? Math.max(value - last, 0) / ((now - at) / 1000) : 0;
    at = now;
    last = value;
    return per;
  };
}
