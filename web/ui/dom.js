// @ts-check
/** Elements made and found; text only ever as text. */

/** @param {string} id @returns {any} the element; its absence is a mistake in the page */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return found;
}

/**
 * @param {string} tag @param {string|Record<string, string>} [attributes] a class, or attributes
 * @param {...(Node|string|null)} children
 * @returns {any} of whichever kind the tag is
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  const all = typeof attributes === "string" ? { class: attributes } : attributes;
  for (const [name, value] of Object.entries(all)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** One of the page's symbols. @param {string} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A bar in a picture as wide as its place. @param {number} from share @param {number} to share */
export function bar(from, to) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const rect = document.createElementNS(SVG, "rect");
  rect.setAttribute("x", `${(from * 100).toFixed(2)}%`);
  rect.setAttribute("width", `${Math.max(1, (to - from) * 100).toFixed(2)}%`);
  rect.setAttribute("height", "14");
  rect.setAttribute("rx", "3");
  svg.append(rect);
  return svg;
}

/** Writes only what is new: a text that is set again is a selection lost.
 * @param {Element} element @param {string} text */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {Element} element @param {string} name @param {string} value */
export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Sets a list of terms and values. @param {Element} list @param {[string, string][]} rows */
export function setTerms(list, rows) {
  if (list.children.length !== rows.length * 2) {
    list.replaceChildren(...rows.flatMap(() => [make("dt"), make("dd")]));
  }
  rows.forEach(([term, value], index) => {
    setText(list.children[index * 2], term);
    setText(list.children[index * 2 + 1], value);
  });
}

/** @param {number|null|undefined} value @param {string} [unit] */
export function rounded(value, unit = "") {
  if (value === null || value === undefined) return "–";
  return `${Math.round(value).toLocaleString("en-US").replaceAll(",", "\u202f")}${unit}`;
}

/** Minutes and seconds. @param {number} ms */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const hours = Math.floor(seconds / 3600);
  const minutes = String(Math.floor(seconds / 60) % 60);
  const rest = String(seconds % 60).padStart(2, "0");
  return hours ? `${hours}:${minutes.padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** The time of day with ms. @param {number} epochMs */
export function clockTime(epochMs) {
  const date = new Date(epochMs);
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}
