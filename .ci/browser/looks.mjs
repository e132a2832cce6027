// How a page looks, and whether everybody can use it, at both widths and in both schemes.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { picture } from "./harness.mjs";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// audit fails with what axe-core has against the page as it is.
export async function audit(page, what) {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    // What is taken away while it looks is no violation.
    const { violations } = await globalThis.axe.run(document, { resultTypes: ["violations"] });
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("; ")}`);
  });
  assert.deepEqual(violations, [], what);
}

const everyLook = [[360, "light"], [360, "dark"], [1440, "light"], [1440, "dark"]];

// looks takes pictures of a page, and looks for what runs over its window.
export async function looks(page, name, some = everyLook) {
  const before = page.viewportSize();
  for (const [width, colorScheme] of some) {
    await page.setViewportSize({ width, height: width > 1000 ? 900 : 740 });
    await page.emulateMedia({ colorScheme });
    const what = `${name}, ${width} pixels, ${colorScheme}`;
    // A chart learns of its new width a frame or more later.
    await page.waitForFunction((w) => document.documentElement.scrollWidth === w, width, { timeout: 5000 }).catch(() => {});
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width, `${what}: how wide it is`);
    await audit(page, what);
    await page.screenshot({ path: picture(`${name}-${width}-${colorScheme}.png`), fullPage: true });
  }
  await page.emulateMedia({ colorScheme: null });
  await page.setViewportSize(before);
}
