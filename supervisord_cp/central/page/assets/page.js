"use strict";
// The status page. State comes as one tree and then as merge patches (RFC 7386); each part of the page is made
// anew only when its part of the tree has changed. Text is only ever set as text, never as HTML.

const at = (id) => document.getElementById(id);
const page = { state: {}, curves: {}, access: { role: "viewer", login: false }, tick: 1, shown: new Map() };

function merged(target, patch) {
  const out = { ...target };
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete out[name];
    else if (typeof value === "object" && !Array.isArray(value)) out[name] = merged(out[name] ?? {}, value);
    else out[name] = value;
  }
  return out;
}

// Elements

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Keep one child of `parent` for each item, in order; make it anew only when `item` is another. */
function keep(parent, items, build) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const [key, item] of items) {
    const text = JSON.stringify(item);
    let child = old.get(key);
    if (!child || child.dataset.is !== text) {
      const focused = child?.contains(document.activeElement) ? document.activeElement.dataset.does : null;
      const fresh = build(key, item);
      fresh.dataset.key = key;
      fresh.dataset.is = text;
      if (child) {
        if (place === child) place = fresh;
        child.replaceWith(fresh);
        if (focused) fresh.querySelector(`[data-does="${focused}"]`)?.focus();
      }
      child = fresh;
    }
    old.delete(key);
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
  }
  for (const gone of old.values()) gone.remove();
}

function cell(label, content, kind = "") {
  return make("td", { "data-label": label, class: kind || null }, ...[content].flat().map((c) => c ?? ""));
}

const pill = (text, tone) => make("span", { class: `pill ${tone}` }, text);
const button = (text, does, run) => make("button", { type: "button", "data-does": does, onclick: run }, text);

// Words and numbers

const tones = {
  ready: "good", starting: "info", gated: "info", draining: "warn", stopping: "warn", releasing: "warn",
  degraded: "bad", crashed: "bad", backoff: "bad", unknown: "unknown", unlisted: "warn", sleeping: "unknown",
  stopped: "unknown", connected: "good", silent: "bad", lost: "bad", disconnected: "warn",
};
const number = (value, digits = 1) =>
  value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) >= 100 ? 0 : digits });
const seconds = (value) =>
  value == null ? "–" : value < 1 ? `${Math.round(value * 1000)} ms` : value < 120 ? `${number(value)} s` : `${Math.round(value / 60)} min`;
const size = (bytes) => (bytes == null ? "?" : `${number(bytes / 2 ** 30, 0)} GiB`);
const operator = () => page.access.role === "operator";
const byName = (tree) =>
  Object.entries(tree ?? {}).sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));

// Parts of the page

function showHealth() {
  const { healthy, problems, central } = page.state;
  const list = at("problems");
  at("version").textContent = central?.version ?? "";
  setPill(at("health"), healthy ? "healthy" : `${problems.length} to look at`, healthy ? "good" : "bad");
  document.title = `${healthy ? "✓" : "✗"} supervisord-cp`;
  list.hidden = problems.length === 0;
  keep(list, problems.map((text, index) => [String(index), text]), (key, text) => make("li", {}, text));
}

function setPill(element, text, tone) {
  if (element.textContent !== text) element.textContent = text;
  element.className = `pill ${tone}`;
}

const figures = [
  ["requests_per_s", "Requests per second", number],
  ["ttft_s", "Time to first token", seconds],
  ["queued", "Waiting", (value) => number(value, 0)],
  ["tokens_per_s", "Tokens per second", number],
];

function showFigures() {
  keep(at("figures"), figures.map(([name, title, text]) => [name, [title, page.curves[name] ?? []]]), (name, [title, curve]) => {
    const text = figures.find((one) => one[0] === name)[2];
    const last = curve.at(-1);
    const most = Math.max(...curve.filter((value) => value != null), 0);
    const label = `${title}: ${last == null ? "unknown" : text(last)}, at most ${text(most)} in five minutes`;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 299 44");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    for (const run of runs(curve, most)) {
      svg.append(path(`M${run[0][0]},44L${run.join("L")}L${run.at(-1)[0]},44Z`, "area"), path(`M${run.join("L")}`));
    }
    return make("div", { class: "figure" }, make("h3", {}, title), make("strong", {}, last == null ? "–" : text(last)), svg);
  });
}

/** The stretches of a curve that are known, as points; newest at the right. */
function runs(curve, most) {
  const out = [];
  let run = [];
  curve.forEach((value, index) => {
    if (value == null) { if (run.length) out.push(run); run = []; }
    else run.push([300 - curve.length + index, 42 - (40 * value) / (most || 1)]);
  });
  if (run.length) out.push(run);
  return out;
}

function path(d, kind) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "path");
  element.setAttribute("d", d);
  if (kind) element.setAttribute("class", kind);
  return element;
}

function showDeployments() {
  keep(document.querySelector("#deployments tbody"), byName(page.state.deployments).map(([name, one]) => [name, [one, operator()]]), deploymentRow);
}

function deploymentRow(name, [one, mayAct]) {
  const ready = one.ready + one.static_ready;
  const tone = ready >= one.wanted ? "good" : one.starting ? "info" : "bad";
  const more = [
    one.starting && `${one.starting} starting`, one.draining && `${one.draining} draining`,
    one.held && "held", one.progress && `rolling out: ${one.progress}`,
  ].filter(Boolean).join(", ");
  const range = one.min === one.max ? one.scaler : `${one.scaler}, ${one.min} to ${one.max}`;
  const why = [one.message, ...(one.cannot_place ?? []), ...(one.gated ?? []), ...(one.failing ?? [])].filter(Boolean).join("; ");
  return make("tr", {},
    cell("Name", [make("strong", {}, name), make("small", { class: "mono" }, one.served_name)]),
    cell("Replicas", [pill(`${ready} of ${one.wanted}`, tone), make("small", {}, more || range)]),
    cell("Why", why, "wide"),
    cell("Requests/s", number(one.figures?.requests_per_s)),
    cell("Waiting", number(one.figures?.queued, 0)),
    cell("TTFT", seconds(one.figures?.ttft_s)),
    cell("Tokens/s", number(one.figures?.tokens_per_s)),
    cell("Actions", mayAct ? [
      button("Scale", "scale", () => scale(name, one.wanted)),
      button("Restart", "restart", () => act("Restart", `deployments/${name}/restart`, `Replace all engines of ${name}, one after the other, without losing requests?`)),
      one.held
        ? button("Start", "start", () => act("Start", `deployments/${name}/start`, `Let ${name} run again?`))
        : button("Drain", "drain", () => act("Drain", `deployments/${name}/drain`, `Finish the requests of ${name}, then stop its engines until it is started again?`)),
    ] : "", "actions"));
}

function showNodes() {
  keep(at("nodes"), byName(page.state.nodes).map(([name, one]) => [name, [one, operator()]]), nodeCard);
}

function nodeCard(name, [one, mayAct]) {
  const verb = one.cordoned ? "uncordon" : "cordon";
  const text = one.cordoned ? `Let new engines be started on ${name} again?` : `Start nothing new on ${name}? What runs there goes on.`;
  return make("article", { class: "node", "aria-label": `node ${name}` },
    make("header", {}, make("strong", {}, name), pill(one.state, tones[one.state] ?? "unknown"),
      one.cordoned ? pill("cordoned", "warn") : null, one.zone ? make("span", { class: "soft" }, one.zone) : null,
      one.gpu_message ? make("span", { class: "soft" }, one.gpu_message) : null,
      mayAct ? button(one.cordoned ? "Uncordon" : "Cordon", "cordon", () => act(verb, `nodes/${name}/${verb}`, text)) : null,
      mayAct && one.state !== "connected" ? button("Forget", "forget", () => act("Forget", `nodes/${name}/forget`, `Is ${name} gone for good? It leaves the fleet, and its replicas are placed elsewhere.`)) : null),
    make("ul", { class: "devices" }, ...byName(one.devices).sort(([, a], [, b]) => (a.index ?? 0) - (b.index ?? 0)).map(deviceTile)));
}

function deviceTile([name, one]) {
  const sick = one.health && one.health !== "healthy";
  const use = sick ? `${one.health}${one.health_message ? `: ${one.health_message}` : ""}`
    : one.retry_s ? `${one.use}, again in ${seconds(one.retry_s)}` : one.use;
  const share = one.memory_total ? (one.memory_used ?? 0) / one.memory_total : null;
  const facts = [
    share == null ? null : `${size(one.memory_used)} of ${size(one.memory_total)}`,
    one.utilization == null ? null : `${Math.round(one.utilization * 100)} % busy`,
    one.temperature_c == null ? null : `${one.temperature_c} °C`,
  ].filter(Boolean).join(", ");
  const bar = make("i");
  bar.style.width = `${Math.round(100 * (share ?? 0))}%`;
  const title = [one.name, name, use, facts, ...(one.strangers ?? [])].filter(Boolean).join("\n");
  return make("li", { class: `device use-${one.use} ${sick ? "sick" : ""}`, title },
    make("b", {}, one.index == null ? name : `GPU ${one.index}`),
    make("span", {}, one.instance ? link(one.instance) : use),
    one.instance && use !== "serving" ? make("span", { class: "use" }, use) : null,
    one.strangers?.length ? make("span", {}, one.strangers.join(", ")) : null,
    share == null ? null : make("div", { class: "bar", role: "img", "aria-label": `memory: ${facts}` }, bar),
    facts ? make("span", { class: "soft" }, facts) : null);
}

const MOST_ROWS = 200;

function showInstances() {
  const wanted = at("filter").value.trim().toLowerCase();
  const all = byName(page.state.instances).filter(([name, one]) => !wanted || `${name} ${JSON.stringify(one)}`.toLowerCase().includes(wanted));
  keep(document.querySelector("#instances tbody"), all.slice(0, MOST_ROWS).map(([name, one]) => [name, [one, operator()]]), instanceRow);
  at("more").hidden = all.length <= MOST_ROWS;
  at("more").textContent = `${all.length - MOST_ROWS} more: filter, or use supervisord-cp instances.`;
}

const link = (name) => make("button", { type: "button", class: "link", "data-does": "detail", onclick: () => showDetail(name) }, name);

function instanceRow(name, [one, mayAct]) {
  const phase = [one.phase && one.phase !== "ready" ? one.phase : "", one.eta_s == null ? "" : `about ${seconds(one.eta_s)} left`];
  const last = one.last_exit;
  const crash = last && `last end: ${last.cause}${last.signal ? ` (signal ${last.signal})` : last.code == null ? "" : ` (exit code ${last.code})`}${last.detail ? `: ${last.detail}` : ""}`;
  return make("tr", {},
    cell("Instance", [link(name), make("small", {}, one.static ? "static" : `${one.engine} ${one.revision}`)]),
    cell("State", [pill(one.state, tones[one.state] ?? "unknown"), make("small", {}, phase.filter(Boolean).join(", "))]),
    cell("Node", one.node),
    cell("GPUs", devicesText(one)),
    cell("Running", one.requests_running == null ? "–" : String(one.requests_running)),
    cell("Waiting", one.requests_waiting == null ? "–" : String(one.requests_waiting)),
    cell("KV cache", one.kv_cache_usage == null ? "–" : `${Math.round(one.kv_cache_usage * 100)} %`),
    cell("Restarts", String(one.restarts)),
    cell("Known", [one.message, crash && make("small", {}, crash)], "wide"),
    cell("Actions", mayAct && !one.static ? [
      button("Restart", "restart", () => act("Restart", `instances/${name}/restart`, `Replace the engine of ${name}? Its requests are finished first.`)),
      one.state === "stopped"
        ? button("Start", "start", () => act("Start", `instances/${name}/start`, `Start ${name}?`))
        : button("Drain", "drain", () => act("Drain", `instances/${name}/drain`, `Finish the requests of ${name}, then hold it stopped?`)),
    ] : "", "actions"));
}

function devicesText(one) {
  const devices = page.state.nodes?.[one.node]?.devices ?? {};
  const names = one.gpus.map((uuid) => devices[uuid]?.index ?? uuid);
  return names.map((name, index) => make("span", { class: "whole" }, `${name}${index + 1 < names.length ? "," : ""} `));
}

function showEvents() {
  const newest = Object.entries(page.state.events ?? {}).sort(([a], [b]) => b - a);
  keep(document.querySelector("#events ol"), newest, (key, one) => {
    const when = new Date(one.at * 1000);
    return make("li", { class: `is-${one.severity}` },
      make("time", { datetime: when.toISOString(), title: when.toLocaleString() }, when.toLocaleTimeString("en-GB")),
      make("span", { class: "soft" }, one.kind),
      make("span", {}, `${one.subject}${one.message ? `: ${one.message}` : ""}`));
  });
}

function showAll() {
  if (!page.state.central) return;
  showHealth(); showDeployments(); showNodes(); showInstances(); showEvents();
  at("login").hidden = !page.access.login || operator();
  at("logout").hidden = !page.access.login;
}

// One instance

const detail = { name: "", previous: false };

async function showDetail(name) {
  Object.assign(detail, { name, previous: false });
  at("detail-title").textContent = name;
  for (const part of ["detail-facts", "detail-crash", "detail-log"]) at(part).textContent = "…";
  if (!at("detail").open) at("detail").showModal();
  showLog();
  const told = await ask(`explain/instance/${encodeURIComponent(name)}`);
  if (detail.name !== name) return;
  const one = told.instance ?? {};
  at("detail-facts").replaceChildren(facts({
    State: `${one.state ?? "?"}${one.message ? `: ${one.message}` : ""}`, Node: one.node, Address: one.url, PID: one.pid,
    Revision: one.revision, Restarts: one.restarts, Error: told.error,
  }));
  const crash = told.capsule;
  at("detail-crash").replaceChildren(crash ? facts({
    Cause: crash.cause, When: crash.at, Evidence: crash.evidence, Signal: crash.signal, "Exit code": crash.code,
    "Had come to": crash.served ? "ready" : crash.phase, Devices: (crash.devices ?? []).join(", "),
  }) : make("p", { class: "soft" }, told.capsule_missing || "unknown"));
  if (crash?.log_tail) at("detail-crash").append(make("pre", { tabindex: "0" }, crash.log_tail));
}

async function showLog() {
  const { name, previous } = detail;
  at("detail-previous").setAttribute("aria-pressed", String(previous));
  const answer = await fetch(`/api/v1/instances/${encodeURIComponent(name)}/logs?lines=200&previous=${previous ? 1 : 0}`);
  const text = await answer.text();
  if (detail.name !== name) return;
  at("detail-log").textContent = answer.ok ? text || "nothing was written" : message(text);
  at("detail-log").scrollTop = at("detail-log").scrollHeight;
}

function facts(values) {
  const known = Object.entries(values).filter(([, value]) => value != null && value !== "");
  return make("dl", {}, ...known.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}

async function ask(what) {
  const answer = await fetch(`/api/v1/${what}`);
  const text = await answer.text();
  return answer.ok ? JSON.parse(text) : { error: message(text) };
}

function message(text) {
  try { return JSON.parse(text).error; } catch { return text; }
}

// Operations

function confirmed(title, text, value = null) {
  const dialog = at("ask"), field = at("ask-number"), input = field.querySelector("input");
  at("ask-title").textContent = title;
  at("ask-text").textContent = text;
  field.hidden = value === null;
  input.disabled = value === null;
  input.value = value ?? "";
  dialog.returnValue = "no";
  dialog.showModal();
  if (value !== null) input.select();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes" ? input.value || true : null), { once: true });
  });
}

async function act(title, where, text) {
  if (await confirmed(title, text)) await post(where, {});
}

async function scale(name, wanted) {
  const answer = await confirmed(`Scale ${name}`, "A number holds until it is taken back with auto.", String(wanted));
  if (answer) await post(`deployments/${name}/scale`, { replicas: answer === "auto" ? "auto" : Number(answer) });
}

async function post(where, body) {
  const answer = await fetch(`/api/v1/${where.split("/").map(encodeURIComponent).join("/")}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) return say(message(text));
  const told = JSON.parse(text);
  return say(told.message ?? `asked of ${told.instances.join(", ") || "no instance"}`);
}

let silence = 0;
function say(text) {
  at("said").textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => { at("said").textContent = ""; }, 8000);
}

// Who is there, and the live feed

let source = null;

function connect() {
  source?.close();
  source = new EventSource("/api/v1/page/stream");
  source.addEventListener("state", (event) => {
    const told = JSON.parse(event.data);
    Object.assign(page, { state: told.state, curves: told.curves, access: told.access });
    at("who").close();
    showAll(); showFigures();
  });
  source.addEventListener("tick", (event) => {
    const told = JSON.parse(event.data);
    page.state = merged(page.state, told.patch);
    if (told.figures) {
      for (const [name] of figures) page.curves[name] = [...(page.curves[name] ?? []), told.figures[name] ?? null].slice(-300);
      showFigures();
    }
    if (Object.keys(told.patch).length) showAll();
  });
  source.addEventListener("error", async () => {
    setPill(at("health"), "not connected", "unknown");
    if (source.readyState !== EventSource.CLOSED) return;
    // The browser gives up after a refusal; find out whether a login is what is missing.
    const answer = await fetch("/api/v1/status").catch(() => null);
    if (answer?.status === 401) { if (!at("who").open) at("who").showModal(); }
    else setTimeout(connect, 2000);
  });
}

at("who-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/login", { method: "POST", body: new URLSearchParams(new FormData(event.target)) });
  at("token").value = "";
  at("who-error").textContent = answer.ok ? "" : message(await answer.text());
  if (answer.ok) connect();
});
at("login").addEventListener("click", () => at("who").showModal());
at("logout").addEventListener("click", async () => { await fetch("/logout", { method: "POST" }); location.reload(); });
at("filter").addEventListener("input", showInstances);
at("detail-previous").addEventListener("click", () => { detail.previous = !detail.previous; showLog(); });
document.addEventListener("keydown", (event) => {
  const writing = event.target.matches("input, textarea") || document.querySelector("dialog[open]");
  if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); at("filter").focus(); }
});
connect();
