// @ts-check
/** The style sheet's colours, for canvases: computed anew when the theme changes. */

const NAMES = ["system", "user", "assistant", "error", "tool", "ink", "dim", "edge", "line"];

/** @type {Record<string, string>|null} */
let known = null;

/** @returns {Record<string, string>} */
export function palette() {
  if (known) return known;
  const probe = document.createElement("span");
  document.body.append(probe);
  const entries = NAMES.map((name) => {
    probe.style.setProperty("color", `var(--${name})`);
    return [name, getComputedStyle(probe).color];
  });
  probe.remove();
  known = Object.fromEntries(entries);
  return /** @type {Record<string, string>} */ (known);
}

/** The theme has changed. */
export function forgetPalette() {
  known = null;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", forgetPalette);

/**
 * A canvas made as fine as the screen, its context in CSS pixels, cleared.
 * @param {HTMLCanvasElement} canvas
 */
export function freshContext(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d");
  if (!context || width === 0) return null;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}
