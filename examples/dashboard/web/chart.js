// @ts-check
// The chart: uPlot, with the page's colours.

const { uPlot } = /** @type {any} */ (globalThis);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * A colour of the style sheet, as it is now.
 *
 * @param {string} name
 * @param {string} [hue]
 */
function ink(name, hue = "") {
  probe.className = hue;
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}
const probe = document.body.appendChild(document.createElement("i"));
probe.hidden = true;

/** Lines of the last seconds, and where the link was cut. */
export class Chart {
  #element;
  #seconds;
  /** @type {(number | null)[][]} */
  #data;
  /** @type {number[]} */
  #cuts = [];
  #dirty = false;
  #plot;

  /**
   * @param {HTMLElement} element
   * @param {string[]} names
   * @param {number} seconds
   */
  constructor(element, names, seconds) {
    this.#element = element;
    this.#seconds = seconds;
    this.#data = [[], ...names.map(() => [])];
    const axis = {
      stroke: () => ink("--soft"),
      grid: { stroke: () => ink("--line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    this.#plot = new uPlot(
      {
        ...this.#size(),
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: true, range: () => this.#range() } },
        axes: [
          { ...axis, space: 80, size: 28, values: "{HH}:{mm}:{ss}" },
          { ...axis, size: 44, values: (/** @type {any} */ _, /** @type {number[]} */ all) => all.map((v) => v.toFixed(2)) },
        ],
        series: [{}, ...names.map((label, i) => ({ label, width: 1.5, points: { show: false }, stroke: () => ink("--hue", `hue-${i}`) }))],
        hooks: { drawClear: [(/** @type {any} */ plot) => this.#drawCuts(plot)] },
      },
      this.#data,
      element,
    );
    new ResizeObserver(() => this.#plot.setSize(this.#size())).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#plot.redraw());
  }

  /** Forgets everything. */
  clear() {
    for (const column of this.#data) column.length = 0;
    this.#cuts.length = 0;
    this.#draw();
  }

  /**
   * Adds a moment, in seconds, with a value for each line; null: there is none.
   *
   * @param {number} at
   * @param {(number | null)[]} values
   */
  add(at, values) {
    [at, ...values].forEach((v, i) => this.#data[i]?.push(v));
    const [times = []] = this.#data;
    const old = times.findIndex((t) => /** @type {number} */ (t) > at - this.#seconds - 1);
    if (old > 0) for (const column of this.#data) column.splice(0, old);
    this.#draw();
  }

  /** Marks the latest moment. */
  mark() {
    const at = this.#data[0]?.at(-1);
    if (at) this.#cuts.push(at);
  }

  /**
   * The first and the latest value of a line.
   *
   * @param {number} i
   * @returns {[number | null, number | null]}
   */
  ends(i) {
    const line = this.#data[i + 1] ?? [];
    return [line[0] ?? null, line.at(-1) ?? null];
  }

  /**
   * @param {number} i
   * @param {boolean} shown
   */
  show(i, shown) {
    this.#plot.setSeries(i + 1, { show: shown });
  }

  #draw() {
    if (this.#dirty) return;
    this.#dirty = true;
    const draw = () => {
      this.#dirty = false;
      this.#plot.setData(this.#data);
    };
    if (calm.matches) setTimeout(draw, 1000);
    else requestAnimationFrame(draw);
  }

  /** @returns {[number, number]} */
  #range() {
    const newest = this.#data[0]?.at(-1) ?? Date.now() / 1000;
    return [newest - this.#seconds, newest];
  }

  #size() {
    const { clientWidth: width, clientHeight: height } = this.#element;
    return { width: Math.max(width, 50), height: Math.max(height, 50) };
  }

  /** @param {any} plot */
  #drawCuts(plot) {
    const [oldest] = this.#range();
    this.#cuts = this.#cuts.filter((at) => at > oldest);
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = ink("--busy");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const at of this.#cuts) {
      const x = Math.round(plot.valToPos(at, "x", true)) + 0.5;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}
