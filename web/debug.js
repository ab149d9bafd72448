// @ts-check
/**
 * `window.listenai`: what tests and the curious may read.  Nothing can be changed by it.
 *
 *   listenai.state      a copy of the page's whole state (`State` in state.js)
 *   listenai.situation  what the page says is going on (`Situation` in situation.js)
 *   listenai.events     everything that happened in the live session, in order:
 *                       {at, source, event}, audio as `samples` (see session.js)
 *   listenai.settings   a copy of the settings (`Settings` in settings.js)
 */

/**
 * @param {{state: () => import("./state.js").State,
 *   situation: () => import("./situation.js").Situation,
 *   events: () => object[], settings: () => import("./settings.js").Settings}} read
 */
export function exposeForReading(read) {
  const surface = Object.freeze({
    get state() {
      return structuredClone(read.state());
    },
    get situation() {
      return structuredClone(read.situation());
    },
    get events() {
      return structuredClone(read.events());
    },
    get settings() {
      return structuredClone(read.settings());
    },
  });
  Object.defineProperty(window, "listenai", { value: surface });
}
