// @ts-check
/** The page put together: what happens goes into the state, the state onto the screen. */

import { exposeForReading } from "./debug.js";
import { Live } from "./live.js";
import { Recording, openArchive, openSession } from "./session.js";
import { keyIn, readSettings, withoutKey } from "./settings.js";
import { Show } from "./show.js";
import { situationOf } from "./situation.js";
import { INITIAL, reduce } from "./state.js";
import { animate } from "./ui/animation.js";
import { Announcer } from "./ui/announce.js";
import { Config } from "./ui/config.js";
import { byId, duration, make, setText } from "./ui/dom.js";
import { Log } from "./ui/log.js";
import { forgetPalette } from "./ui/palette.js";
import { Protocol } from "./ui/protocol.js";
import { mountShortcuts } from "./ui/shortcuts.js";
import { Stage } from "./ui/stage.js";
import { renderStats } from "./ui/stats.js";
import { mountTabs } from "./ui/tabs.js";
import { Timeline, levelOf } from "./ui/timeline.js";
import { Waterfall } from "./ui/waterfall.js";

/** @typedef {import("./state.js").Happening} Happening */
/** @typedef {import("./state.js").State} State */

const SETTINGS_ITEM = "listenai.settings";
const KEY_ITEM = "listenai.key"; // of the tab only
const DEMO = ["session.jsonl", "you.wav", "assistant.wav"];
const LEVEL_SAMPLES = 320; // 20 ms: one bar of the timeline, or less
const TICK_MS = 250; // countdowns, durations

// --- what the page knows ---------------------------------------------------------------------

const settings = readSettings(localStorage.getItem(SETTINGS_ITEM));
const broughtKey = keyIn(location.href);
if (broughtKey) {
  sessionStorage.setItem(KEY_ITEM, broughtKey);
  history.replaceState(null, "", withoutKey(location.href)); // not to be read over a shoulder
}
let key = sessionStorage.getItem(KEY_ITEM) ?? "";
const began = { type: "began", epochMs: performance.timeOrigin, origin: "live" };
/** @type {State} */
let state = reduce(INITIAL, { at: 0, source: "page", event: began });
const recording = new Recording(performance.timeOrigin);
/** @type {{show: Show, liveState: State}|null} */
let replaying = null;

const live = new Live({
  settings: () => settings,
  key: () => key,
  happen,
  setVolume,
  refused: (reason) => config.note(`Refused: ${reason}`),
});
const stage = new Stage();
const log = new Log();
const protocol = new Protocol();
const waterfall = new Waterfall();
const announcer = new Announcer();
const timeline = new Timeline(byId("timeline"));
const config = new Config(settings, key, {
  apply(server) {
    save({ server });
    const sent = live.configure();
    config.note(sent ? "Sent; effective from the next turn." : "Kept for the next connection.");
  },
  change: changeSetting,
  key(entered) {
    key = entered;
    sessionStorage.setItem(KEY_ITEM, entered);
  },
});
protocol.clear(performance.timeOrigin);
const [, inspectorTabs] = [...document.querySelectorAll('[role="tablist"]')].map((list) =>
  mountTabs(/** @type {HTMLElement} */ (list)),
);

exposeForReading({
  state: () => state,
  situation,
  events: () => recording.events,
  settings: () => settings,
});

// --- what happens ------------------------------------------------------------------------------

/** @param {Happening["source"]} source @param {Happening["event"]} event @param {number} [at] */
function happen(source, event, at = performance.now()) {
  const happening = { at, source, event };
  if (event.type !== "devices") recording.add(happening);
  if (replaying) replaying.liveState = reduce(replaying.liveState, happening);
  else take(happening);
}

/** @param {Happening} happening live or replayed */
function take(happening) {
  const before = state;
  state = reduce(state, happening);
  if (state !== before) scheduleRender();
  protocol.add(happening);
  const { at, source, event } = happening;
  if (source === "microphone" && event.type === "frame") {
    for (let start = 0; start < event.pcm.length; start += LEVEL_SAMPLES) {
      const level = levelOf(event.pcm.subarray(start, start + LEVEL_SAMPLES));
      timeline.you.add(at + start / 16, level);
    }
  }
}

/** @param {Partial<import("./settings.js").Settings>} changes */
function save(changes) {
  Object.assign(settings, changes);
  localStorage.setItem(SETTINGS_ITEM, JSON.stringify(settings));
  scheduleRender();
}

/** @param {keyof import("./settings.js").Settings} name @param {any} value */
function changeSetting(name, value) {
  save({ [name]: value });
  if (name === "theme") showTheme();
  if (name === "outputId") live.setOutput(value);
  const capture = ["inputId", "echoCancellation", "noiseSuppression", "autoGainControl", "frameMs"];
  if (capture.includes(name) && state.microphone.state === "live") void live.listen();
}

/** @param {number} percent */
function setVolume(percent) {
  save({ volume: percent });
  live.setVolume(percent);
  replaying?.show.setVolume(percent);
}

// --- onto the screen ---------------------------------------------------------------------------

function clock() {
  return replaying ? replaying.show.position : performance.now();
}

function situation() {
  return situationOf(state, clock(), settings.mode);
}

let renderScheduled = false;

function scheduleRender() {
  if (renderScheduled) return;
  renderScheduled = true;
  requestAnimationFrame(render);
}

function render() {
  renderScheduled = false;
  const now = situation();
  stage.render(state, now, settings);
  log.render(state);
  waterfall.render(state);
  renderStats(state, clock());
  config.render(state, settings);
  protocol.draw();
  announcer.render(state, now, settings.readReplies);
  byId("export").disabled = recording.empty || replaying !== null;
  byId("replay").hidden = !replaying;
  if (replaying) renderReplay(replaying.show);
}

/** @param {Show} show */
function renderReplay(show) {
  byId("replay-progress").value = show.duration ? Math.min(1, show.position / show.duration) : 0;
  setText(byId("replay-time"), `${duration(show.position)} / ${duration(show.duration)}`);
  const over = !show.running && show.position >= show.duration;
  setText(byId("replay-toggle"), over ? "Again" : show.running ? "Pause" : "Go on");
}

function showTheme() {
  const { theme } = settings;
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText(byId("theme-text"), `Theme: ${theme === "system" ? "as the system" : theme}`);
  /** @type {HTMLSelectElement} */ (document.querySelector('select[name="theme"]')).value = theme;
  forgetPalette();
}

// --- replay and export -------------------------------------------------------------------------

/** @param {() => Promise<ReturnType<typeof openSession>>} open @param {string} title */
async function startReplay(open, title) {
  try {
    const session = await open();
    if (state.connection.state !== "closed" && state.origin === "live") live.disconnect();
    const liveState = replaying?.liveState ?? state;
    replaying?.show.close();
    setText(byId("replay-title"), title);
    beginShow(session, liveState);
  } catch (error) {
    const text = `Cannot replay: ${/** @type {Error} */ (error).message}.`;
    happen("page", { type: "problem", text });
  }
}

/** @param {ReturnType<typeof openSession>} session @param {State} liveState */
function beginShow(session, liveState) {
  const show = new Show(session, {
    on: (happening) => {
      if (replaying?.show === show) take(happening);
    },
    ended: scheduleRender,
  });
  replaying = { show, liveState };
  const event = { type: "began", epochMs: session.epochMs, origin: "replay" };
  view(reduce(INITIAL, { at: 0, source: "page", event }));
  show.setVolume(settings.volume);
  show.start();
  byId("replay-toggle").onclick = () => {
    if (show.running) show.pause(true);
    else if (show.position < show.duration) show.pause(false);
    else {
      show.close();
      beginShow(session, liveState);
    }
    scheduleRender();
  };
}

function stopReplay() {
  if (!replaying) return;
  const { show, liveState } = replaying;
  show.close();
  replaying = null;
  view(liveState);
  const { events } = recording;
  for (const happening of events) protocol.add(/** @type {Happening} */ (happening));
}

/** Shows another state from its beginning. @param {State} other */
function view(other) {
  state = other;
  log.clear();
  timeline.clear();
  protocol.clear(other.originMs);
  scheduleRender();
}

async function openDemo() {
  const files = await Promise.all(
    DEMO.map(async (name) => {
      const answer = await fetch(new URL(`./demo/${name}`, import.meta.url));
      if (!answer.ok) throw new Error(`the demo's file ${name} is not there (${answer.status})`);
      return [name, new Uint8Array(await answer.arrayBuffer())];
    }),
  );
  return openSession(Object.fromEntries(files));
}

function exportSession() {
  const url = URL.createObjectURL(recording.export());
  const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
  const link = make("a", { href: url, download: `listenai-session-${stamp}.zip` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // the browser has it by then
}

// --- what the user does ------------------------------------------------------------------------

/** @type {Record<string, () => void>} */
const INTENTS = {
  connect: () => {
    stopReplay();
    live.connect();
  },
  retry: () => live.connect(),
  disconnect: () => live.disconnect(),
  interrupt: () => live.interrupt(),
  microphone: () => void live.listen(),
  unlock: () => live.unlock(),
  mute: () => live.mute(true),
  unmute: () => live.mute(false),
  play: () => live.pause(false),
  settings: () => inspectorTabs.select(byId("tab-settings")),
  demo: () => void startReplay(openDemo, "Demo"),
  hold: () => live.talk(state.phase === "speaking" || state.phase === "thinking"),
  none: () => {},
};

function talkPressed() {
  INTENTS[stage.talkIntent]();
  if (stage.talkIntent === "hold") byId("talk").dataset.held = "yes";
}

function talkReleased() {
  live.endTalk();
  delete byId("talk").dataset.held;
}

function toggleConnection() {
  if (state.origin === "live" && state.connection.state !== "closed") live.disconnect();
  else INTENTS.connect();
}

function togglePause() {
  if (!replaying) live.pause(!state.player.userPaused);
  else byId("replay-toggle").click();
}

function nextTheme() {
  const order = /** @type {const} */ (["system", "light", "dark"]);
  changeSetting("theme", order[(order.indexOf(settings.theme) + 1) % order.length]);
}

function mountControls() {
  /** @type {[string, () => void][]} */
  const clicks = [
    ["connect", toggleConnection],
    ["theme", nextTheme],
    ["mute", () => live.mute(!state.microphone.muted)],
    ["pause", togglePause],
    ["demo", INTENTS.demo],
    ["export", exportSession],
    ["replay-stop", stopReplay],
    ["ask-stats", () => live.send({ type: "session_stats" })],
    ["end-session", () => live.endSession()],
    ["recover", () => stage.recovery && INTENTS[stage.recovery]()],
  ];
  for (const [id, act] of clicks) byId(id).addEventListener("click", act);

  const talk = byId("talk");
  talk.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    if (event.button !== 0 || stage.talkIntent !== "hold") return;
    talk.setPointerCapture(event.pointerId);
    talkPressed();
  });
  for (const end of ["pointerup", "pointercancel"]) talk.addEventListener(end, talkReleased);
  talk.addEventListener("contextmenu", (/** @type {Event} */ event) => event.preventDefault());
  talk.addEventListener("click", () => stage.talkIntent !== "hold" && talkPressed());

  byId("volume").addEventListener("input", () => setVolume(Number(byId("volume").value)));
  byId("mode").addEventListener("change", (/** @type {any} */ event) =>
    save({ mode: event.target.value }),
  );
  byId("compose").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    sendMessage();
  });
  byId("open").addEventListener("change", () => {
    const [file] = byId("open").files;
    if (file)
      void startReplay(
        async () => openArchive(new Uint8Array(await file.arrayBuffer())),
        file.name,
      );
    byId("open").value = "";
  });
  mountShortcuts(
    {
      talkPressed,
      talkReleased,
      interrupt: () => live.interrupt(),
      connect: toggleConnection,
      mute: () => live.mute(!state.microphone.muted),
      pause: togglePause,
      theme: nextTheme,
    },
    () => settings.shortcuts,
  );
}

function sendMessage() {
  const field = byId("message");
  const text = field.value.trim();
  if (!text) return;
  if (live.type(text)) field.value = "";
  else
    happen("page", { type: "notice", text: "Not connected: connect first, then send it again." });
}

mountControls();
for (const radio of byId("mode").querySelectorAll("input"))
  radio.checked = radio.value === settings.mode;
showTheme();
setInterval(scheduleRender, TICK_MS);
render();
animate(timeline, () => ({
  state,
  now: clock(),
  tone: situation().tone,
  fps: settings.visualiserFps,
  analysers: replaying ? replaying.show.analysers : live.analysers,
}));
