// @ts-check
/** The settings: what the server is asked to use, and how this page behaves. */

import { SERVER_FIELDS, allows } from "../settings.js";
import { byId, make, setText } from "./dom.js";

/** @typedef {import("../settings.js").Settings} Settings */
/** @typedef {import("../state.js").State} State */

/** Of the page's settings, those that are numbers. */
const NUMBERS = new Set(["frameMs", "visualiserFps", "prebufferMs"]);
/** What a server without word of them uses. @type {Record<string, boolean>} */
const SWITCHED_ON = { interruptible: true, tools: true, partial_results: true };

/**
 * @typedef {object} ConfigIntents
 * @property {(server: Settings["server"]) => void} apply what to `configure` from now on
 * @property {(name: keyof Settings, value: any) => void} change
 * @property {(key: string) => void} key
 */

export class Config {
  #server = /** @type {HTMLFormElement} */ (byId("server-form"));
  #page = /** @type {HTMLFormElement} */ (byId("page-form"));
  /** @type {Record<string, any>|null} */
  #configuration = null;
  /** @type {Record<string, any>|null} */
  #capabilities = null;
  /** @type {any[]|null} */
  #inputs = null;

  /** @param {Settings} settings @param {string} key @param {ConfigIntents} intents */
  constructor(settings, key, intents) {
    fillPage(this.#page, settings);
    fillServer(this.#server, settings.server);
    control(this.#page, "key").value = key;
    this.#server.addEventListener("submit", (event) => {
      event.preventDefault();
      intents.apply(readServer(this.#server, this.#configuration));
    });
    byId("defaults").addEventListener("click", () => {
      fillServer(this.#server, {});
      intents.apply({});
      this.note("The server's choice holds from the next connection on.");
    });
    this.#page.addEventListener("submit", (event) => event.preventDefault());
    byId("session-form").addEventListener("submit", (/** @type {Event} */ event) =>
      event.preventDefault(),
    );
    this.#page.addEventListener("change", (event) => {
      const field = /** @type {HTMLInputElement} */ (event.target);
      if (field.name === "key") {
        intents.key(field.value);
        return;
      }
      const name = /** @type {keyof Settings} */ (field.name);
      const value = valueOf(field);
      if (field.checkValidity() && allows(name, value)) intents.change(name, value);
      else field.reportValidity();
    });
  }

  /** Says how applying went. @param {string} text */
  note(text) {
    setText(byId("apply-note"), text);
  }

  /** @param {State} state @param {Settings} settings */
  render(state, settings) {
    const { session, microphone, connection } = state;
    if (session.capabilities && session.capabilities !== this.#capabilities) {
      this.#capabilities = session.capabilities;
      this.#offer(session.capabilities, settings);
    }
    if (session.configuration && session.configuration !== this.#configuration) {
      this.#configuration = session.configuration;
      showEffective(this.#server, session.configuration, settings.server);
    }
    if (microphone.inputs !== this.#inputs) {
      this.#inputs = microphone.inputs;
      fillDevices(control(this.#page, "inputId"), microphone.inputs, settings.inputId);
      fillDevices(control(this.#page, "outputId"), microphone.outputs, settings.outputId);
    }
    byId("apply").disabled = state.origin === "replay";
    byId("end-session").disabled = connection.state !== "open";
    setText(byId("session-id"), session.id ? `Id ${session.id}` : "None yet.");
  }

  /** @param {Record<string, any>} capabilities @param {Settings} settings */
  #offer({ languages = [], voices = [] }, { server }) {
    const select = control(this.#server, "language");
    const known = [...new Set([...languages, ...(server.language ? [server.language] : [])])];
    select.replaceChildren(
      make("option", { value: "" }, "server's choice"),
      ...known.map((language) => make("option", { value: language }, languageName(language))),
    );
    select.value = String(server.language ?? "");
    byId("voices").replaceChildren(
      ...voices.map((/** @type {string} */ voice) => make("option", { value: voice })),
    );
  }
}

/** @param {string} code */
function languageName(code) {
  try {
    const name = new Intl.DisplayNames(["en"], { type: "language" }).of(code);
    return name && name !== code ? `${name} (${code})` : code;
  } catch {
    return code; // no code that the browser knows
  }
}

/** @param {HTMLFormElement} form @param {string} name @returns {any} */
function control(form, name) {
  return form.elements.namedItem(name);
}

/** @param {HTMLInputElement} field */
function valueOf(field) {
  if (field.type === "checkbox") return field.checked;
  return NUMBERS.has(field.name) ? Number(field.value) : field.value;
}

/** @param {HTMLFormElement} form @param {Settings} settings */
function fillPage(form, settings) {
  for (const [name, value] of Object.entries(settings)) {
    const field = control(form, name);
    if (!field) continue; // it has its place elsewhere on the page
    if (field.type === "checkbox") field.checked = value;
    else field.value = String(value);
  }
}

/** @param {HTMLFormElement} form @param {Settings["server"]} server */
function fillServer(form, server) {
  for (const [name, kind] of Object.entries(SERVER_FIELDS)) {
    const field = control(form, name);
    if (kind === "switch") field.checked = server[name] ?? SWITCHED_ON[name];
    else field.value = String(server[name] ?? "");
  }
}

/** What the server really uses, where nothing was chosen: as placeholder, or as the switch.
 * @param {HTMLFormElement} form @param {Record<string, any>} configuration
 * @param {Settings["server"]} chosen */
function showEffective(form, configuration, chosen) {
  for (const [name, kind] of Object.entries(SERVER_FIELDS)) {
    const field = control(form, name);
    const value = configuration[name];
    if (kind === "switch" && chosen[name] === undefined) field.checked = value ?? SWITCHED_ON[name];
    if (kind !== "switch" && "placeholder" in field)
      field.placeholder = String(value ?? "adaptive");
  }
}

/** Only what differs from the server's own choice; of a switch, what differs from its state.
 * @param {HTMLFormElement} form @param {Record<string, any>|null} effective
 * @returns {Settings["server"]} */
function readServer(form, effective) {
  /** @type {Settings["server"]} */
  const chosen = {};
  for (const [name, kind] of Object.entries(SERVER_FIELDS)) {
    const field = control(form, name);
    if (kind === "switch") {
      if (field.checked !== (effective?.[name] ?? SWITCHED_ON[name]) || !field.checked) {
        chosen[name] = field.checked;
      }
    } else if (field.value.trim() !== "") {
      chosen[name] = kind === "number" ? Number(field.value) : field.value;
    }
  }
  return chosen;
}

/** @param {HTMLSelectElement} select @param {{deviceId: string, label: string}[]} devices
 * @param {string} chosen */
function fillDevices(select, devices, chosen) {
  const options = devices
    .filter(({ deviceId }) => deviceId && deviceId !== "default")
    .map(({ deviceId, label }, index) =>
      make("option", { value: deviceId }, label || `Device ${index + 1}`),
    );
  select.replaceChildren(make("option", { value: "" }, "System default"), ...options);
  select.value = chosen;
  if (select.selectedIndex < 0) select.value = "";
}
