// What the server sends: the state of the page, the stream of events, and the texts that follow from them.
"use strict";

const SILENCE_MS = 6000; // a stream without data for this long is considered lost
const MAX_EPISODES = 60, MAX_ROWS = 32, MAX_VERSIONS = 4, LATENCIES = 100;
const CARTPOLE = ["Cart position", "Cart velocity", "Pole angle", "Pole velocity"];
const CARTPOLE_ACTIONS = ["left", "right"];
const BASE = location.pathname.replace(/\/+$/, "");

const $ = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");

let controller = null; // aborts the current stream
let attempt = 0; // failed attempts since the last session
let retry = 0; // the timer of the next attempt
let session = null, version = null, before = null, now = null, arrived = 0, image = null;
let episode = 1, latencies = [];
const returns = []; // {value, version} of each episode
const players = new Set(); // the versions that have acted in the current episode
const played = new Map(); // version: {episodes, sum} of the episodes that it alone has played here
let mixed = 0; // the episodes that several versions have played
const promotions = []; // {at, version}: the position among the returns, in episodes

/* --- texts ------------------------------------------------------------------------------------------------- */

function text(id, value) {
  const node = $(id), written = String(value);
  if (node.textContent !== written) node.textContent = written;
}

function show(state, status, notice = "") {
  document.body.className = state;
  text("status", status);
  text("notice", notice);
  $("notice").hidden = !notice;
  $("token-form").hidden = true;
  text("toggle", controller || retry ? "Pause" : "Play");
}

function number(value, digits = 3) {
  if (typeof value !== "number") return value === null ? "not finite" : String(value);
  return Number.isInteger(value) ? String(value) : value.toFixed(digits);
}

const minus = (written) => String(written).replace(/-(?=\d)/g, "\u2212");

function written(value) {
  if (Array.isArray(value)) return "[" + value.slice(0, 8).map(written).join(", ") + (value.length > 8 ? ", …]" : "]");
  if (value && typeof value === "object") return Object.entries(value).map(([key, part]) => key + ": " + written(part)).join(", ");
  return minus(number(value));
}

/* --- the stream -------------------------------------------------------------------------------------------- */

async function connect() {
  clearTimeout(retry);
  retry = 0;
  const own = controller = new AbortController();
  show("", attempt ? "Reconnecting" : "Connecting");
  if (now) document.body.classList.add("stale");
  try {
    const token = sessionStorage.getItem("token");
    const headers = token ? { Authorization: "Bearer " + token } : {};
    const answer = await fetch(BASE + "/events", { headers, signal: own.signal, cache: "no-store" });
    if (!answer.ok) return await rejected(answer);
    await read(answer.body.getReader(), own);
    if (controller === own) retryAfter(1);
  } catch {
    if (controller === own) retryAfter(++attempt);
  }
}

async function read(reader, own) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const silence = setTimeout(() => reader.cancel(), SILENCE_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(silence));
    if (done || controller !== own) return;
    const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = events.pop();
    for (const event of events) if (controller === own) receive(event);
  }
}

function receive(event) {
  const found = /^event: (\w+)\ndata: (.*)$/s.exec(event);
  if (found) ({ session: startSession, step, episode: finishEpisode, end })[found[1]](JSON.parse(found[2]));
}

async function rejected(answer) {
  const error = (await answer.json().catch(() => ({}))).error || {};
  if (answer.status === 401 || answer.status === 403) return askForToken(sessionStorage.getItem("token") !== null);
  if (answer.status === 404) return stop("Off", "This server shows no sessions: its argument play_sessions is 0.");
  retryAfter(3, error.code === "play_busy" ? "All sessions are in use. Retrying until one is free." : "");
}

function retryAfter(seconds, notice = "") {
  controller = null;
  retry = setTimeout(connect, 1000 * Math.min(seconds, 5));
  show("lost stale", notice ? "Waiting" : "Reconnecting", notice || (now ? "" : "The server does not respond. Retrying."));
}

function stop(status, notice = "") {
  if (controller) controller.abort();
  controller = null;
  clearTimeout(retry);
  retry = 0;
  show("stale", status, notice);
}

function askForToken(wrong) {
  stop("Locked");
  document.body.className = "lost stale";
  document.querySelector("label[for=token]").textContent = wrong ? "The server rejected this token" : "This server requires a token";
  $("token-form").hidden = false;
  $("token").focus();
}

function end({ reason, message }) {
  if (reason === "environment") return retryAfter(0);
  if (reason === "lost") return retryAfter(3, message);
  const minutes = session ? Math.round(session.length_s / 60) : 0;
  stop(reason === "time" ? "Paused" : "Stopped", reason === "time" ? `Paused after ${minutes} minutes. Press Play to continue.` : message);
}

/* --- events ------------------------------------------------------------------------------------------------ */

function startSession(described) {
  session = described;
  before = now = image = null;
  attempt = 0;
  latencies = [];
  document.title = `${session.name}, live`;
  text("name", session.name);
  text("environment", `plays ${session.environment} · ${session.uri} · ${session.steps_per_s} steps/s`);
  show("live", "Live", session.scene.notice || (session.scene.kind === "numbers" ? "This environment renders no images. Its observation is shown as numbers." : ""));
}

function step(event) {
  if (!event.step) players.clear();
  players.add(event.version);
  if (version !== event.version) promoted(event);
  before = now && event.step ? now : null;
  now = event;
  arrived = performance.now();
  if (event.picture && event.picture.jpeg) decode(event.picture.jpeg);
  text("action", actionOf(event.action));
  text("return", minus(number(event.return, 1)));
  text("value", event.value === null ? "not in the graph" : minus(number(event.value, 2)));
  $("value").classList.toggle("muted", event.value === null);
  text("episode", episode);
  text("step", event.step);
  showLatency(event.latency_ms);
  distribution(event);
  observation(event.observation);
  chart();
  draw();
}

/** Count an episode for the version that played all of it; a return of several versions says nothing of either. */
function count(event) {
  if (players.size > 1) return (mixed += 1);
  const { episodes, sum } = played.get(event.version) || { episodes: 0, sum: 0 };
  played.set(event.version, { episodes: episodes + 1, sum: sum + event.return });
}

function finishEpisode(event) {
  returns.push({ value: event.return, version: event.version });
  count(event);
  versions();
  episode += 1;
  if (returns.length > MAX_EPISODES) {
    returns.shift();
    for (const each of promotions) each.at -= 1;
  }
  if (now && event.picture) {
    before = now;
    now = { ...now, picture: event.picture };
    arrived = performance.now();
    if (event.picture.jpeg) decode(event.picture.jpeg);
  }
  chart();
}

function promoted(event) {
  const old = version;
  version = event.version;
  text("version-number", version);
  versions();
  if (old === null) return;
  promotions.push({ at: returns.length + (event.step ? 0.5 : 0), version });
  text("news", `Version ${version} took over from version ${old} at ${new Date().toLocaleTimeString()}, in episode ${episode}, step ${event.step}.`);
  $("news").classList.add("fresh");
  $("version").classList.remove("changed");
  void $("version").offsetWidth; // restarts the animation
  $("version").classList.add("changed");
}
