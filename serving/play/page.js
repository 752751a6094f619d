"use strict";

const SILENCE_MS = 6000; // a stream without data for this long is considered lost
const MAX_EPISODES = 60, MAX_ROWS = 32, LATENCIES = 100;
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
  show("live", "Live", session.scene.kind === "numbers" ? "This environment renders no images. Its observation is shown as numbers." : "");
}

function step(event) {
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

function finishEpisode(event) {
  returns.push({ value: event.return, version: event.version });
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
  if (old === null) return;
  promotions.push({ at: returns.length + (event.step ? 0.5 : 0), version });
  text("news", `Version ${version} took over from version ${old} at ${new Date().toLocaleTimeString()}, in episode ${episode}, step ${event.step}.`);
  $("news").classList.add("fresh");
  $("version").classList.remove("changed");
  void $("version").offsetWidth; // restarts the animation
  $("version").classList.add("changed");
}

function actionOf(action) {
  if (!isCartPole() || !(action in CARTPOLE_ACTIONS)) return written(action);
  return `${action ? "→" : "←"} ${CARTPOLE_ACTIONS[action]} (${action})`;
}

const isCartPole = () => session.scene.kind === "cartpole";

function showLatency(latency) {
  latencies = [...latencies, latency].slice(-LATENCIES);
  const sorted = [...latencies].sort((a, b) => a - b);
  text("latency", `${latency.toFixed(2)} ms`);
  text("median", `median ${sorted[sorted.length >> 1].toFixed(2)} ms`);
}

/* --- rows of numbers --------------------------------------------------------------------------------------- */

/** Add or remove rows until there are `count`, keeping the others so that the layout does not move; return them. */
function rows(id, count, kind) {
  const list = $(id);
  while (list.childElementCount > count) list.lastChild.remove();
  while (list.childElementCount < count) {
    const row = document.createElement("div");
    row.className = "row " + kind;
    row.append(document.createElement("span"));
    if (kind === "bars") {
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.append(document.createElement("i"));
      row.append(bar);
    }
    row.append(document.createElement("span"));
    list.append(row);
  }
  return [...list.children];
}

function distribution({ distribution: parts }) {
  const bars = parts.flatMap((part) => (part.mean ? gaussians(part) : choices(part))).slice(0, MAX_ROWS);
  rows("distribution", bars.length || 1, bars.length ? "bars" : "plain").forEach((row, index) => {
    const bar = bars[index] || { name: "not in the graph", value: "", from: 0, to: 0 };
    row.firstChild.textContent = bar.name;
    row.lastChild.textContent = bar.value;
    row.classList.toggle("chosen", Boolean(bar.chosen));
    if (row.childElementCount < 3) return;
    const { style } = row.children[1].firstChild;
    style.left = `${100 * bar.from}%`;
    style.width = `${Math.max(0.5, 100 * (bar.to - bar.from))}%`;
  });
}

function choices({ name, start, probabilities }) {
  const best = Math.max(...probabilities);
  return probabilities.map((probability, index) => ({
    name: (name ? name + " = " : "") + (isCartPole() && !name ? CARTPOLE_ACTIONS[index] || index : minus(start + index)),
    value: `${(100 * probability).toFixed(1)} %`, from: 0, to: probability, chosen: probability === best,
  }));
}

function gaussians({ name, mean, std }) {
  const position = (value) => Math.min(1, Math.max(0, (value + 2) / 4)); // before scaling, actions are about -1 to 1
  return mean.map((middle, index) => ({
    name: (name || "mean") + (mean.length > 1 ? `[${index}]` : ""), chosen: true,
    value: minus(`${middle.toFixed(2)} ± ${std[index].toFixed(2)}`), from: position(middle - std[index]), to: position(middle + std[index]),
  }));
}

function observation(observed) {
  const found = flat(observed, "").slice(0, MAX_ROWS);
  rows("observation", found.length, "plain").forEach((row, index) => {
    const [path, value] = found[index];
    row.firstChild.textContent = isCartPole() && found.length === 4 ? CARTPOLE[index] : path || "observation";
    row.lastChild.textContent = value;
  });
}

function flat(value, path) {
  if (Array.isArray(value)) return value.flatMap((part, index) => flat(part, `${path}[${index}]`));
  if (!value || typeof value !== "object") return [[path, minus(number(value))]];
  if (value.dtype && value.shape) return [[path, `${value.shape.join(" × ")} ${value.dtype}`]];
  return Object.entries(value).flatMap(([key, part]) => flat(part, path ? `${path}.${key}` : key));
}

/* --- the drawing ------------------------------------------------------------------------------------------- */

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

function decode(jpeg) {
  const next = new Image();
  next.src = "data:image/jpeg;base64," + jpeg;
  next.decode().then(() => { image = next; draw(); }, () => {});
}

/** Set the canvas to the resolution of the screen, clear it, and return its size in CSS pixels. */
function prepareCanvas(canvas) {
  const ratio = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

function draw() {
  if (!session || !now) return;
  const surface = prepareCanvas($("canvas"));
  if (isCartPole()) {
    drawCartPole(surface, interpolated());
  } else if (image) {
    const scale = Math.min(surface.width / image.width, surface.height / image.height);
    const width = image.width * scale, height = image.height * scale;
    surface.context.imageSmoothingEnabled = image.width > 160; // small images look better with sharp pixels
    surface.context.drawImage(image, (surface.width - width) / 2, (surface.height - height) / 2, width, height);
  }
}

/** Return the position interpolated between two steps, so that the cart moves smoothly. */
function interpolated() {
  const to = now.picture, from = before ? before.picture : to;
  const part = still.matches ? 1 : Math.min(1, (performance.now() - arrived) * session.steps_per_s / 1000);
  return { position: from.position + (to.position - from.position) * part, angle: from.angle + (to.angle - from.angle) * part };
}

function drawCartPole({ context, width, height }, { position, angle }) {
  const { max_position: limit, max_angle: most, pole_length: length } = session.scene;
  const scale = Math.min(width / (2.3 * limit), (height * 0.62) / Math.max(length, 0.5)), ground = height * 0.76;
  const cart = { x: width / 2 + position * scale, width: Math.max(46, 0.5 * scale), height: Math.max(24, 0.26 * scale) };
  const axle = ground - cart.height;
  const line = (points, stroke, thickness, dash = []) => {
    context.beginPath();
    points.forEach(([x, y]) => context.lineTo(x, y));
    Object.assign(context, { strokeStyle: stroke, lineWidth: thickness, lineCap: "round" });
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  };
  const tip = (tilt) => [cart.x + Math.sin(tilt) * length * scale, axle - Math.cos(tilt) * length * scale];
  line([[0, ground + 7], [width, ground + 7]], colour("line"), 3);
  for (const side of [-limit, limit]) line([[width / 2 + side * scale, ground - 14], [width / 2 + side * scale, ground + 20]], colour("muted"), 2);
  for (const tilt of [-most, most]) line([[cart.x, axle], tip(tilt)], colour("line"), 1.5, [5, 6]);
  context.fillStyle = colour("ink");
  context.beginPath();
  context.roundRect(cart.x - cart.width / 2, axle, cart.width, cart.height, 7);
  context.fill();
  line([[cart.x, axle], tip(angle)], colour("wood"), Math.max(8, 0.075 * scale));
  context.fillStyle = colour("card");
  context.beginPath();
  context.arc(cart.x, axle, 4, 0, 7);
  context.fill();
  if (now.action === 0 || now.action === 1) {
    const way = now.action ? 1 : -1, y = axle + cart.height / 2, start = cart.x + way * (cart.width / 2 + 8), end = start + way * 38;
    line([[start, y], [end, y]], colour("accent"), 5);
    line([[end - way * 11, y - 9], [end, y], [end - way * 11, y + 9]], colour("accent"), 5);
  }
}

function animate() {
  if (session && now && isCartPole() && controller && !still.matches) draw();
  requestAnimationFrame(animate);
}

/* --- the chart --------------------------------------------------------------------------------------------- */

function svg(name, attributes, content = "") {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = content;
  return node;
}

/** Return round numbers for an axis; all values are between the first and the last. */
function ticks(values) {
  const low = Math.min(0, ...values), high = Math.max(low + 1, ...values, 0);
  const raw = (high - low) / 3, power = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw);
  const found = [];
  for (let at = Math.floor(low / size); at <= Math.ceil(high / size); at += 1) found.push(at * size);
  return found;
}

function chart() {
  const node = $("chart"), width = node.clientWidth, height = node.clientHeight, pad = { left: 46, right: 16, top: 18, bottom: 22 };
  const values = returns.map((each) => each.value), running = now ? now.return : 0, grid = ticks([...values, running]);
  const slots = Math.max(9, returns.length);
  const x = (index) => pad.left + 12 + (index / slots) * (width - pad.left - pad.right - 12);
  const y = (value) => height - pad.bottom - ((value - grid[0]) / (grid.at(-1) - grid[0])) * (height - pad.top - pad.bottom);
  const drawn = grid.flatMap((value) => [
    svg("line", { class: "grid", x1: pad.left, x2: width - pad.right, y1: y(value), y2: y(value) }),
    svg("text", { x: pad.left - 8, y: y(value) + 4, "text-anchor": "end" }, minus(number(value, 1))),
  ]);
  for (const { at, version: number } of promotions.filter((each) => each.at >= 0)) {
    const left = x(Math.max(0, at - 0.5));
    drawn.push(svg("line", { class: "promotion", x1: left, x2: left, y1: pad.top - 2, y2: height - pad.bottom }));
    drawn.push(svg("text", { class: "named", x: left, y: 12, "text-anchor": "middle" }, `v${number}`));
  }
  const points = values.map((value, index) => `${x(index)},${y(value)}`);
  drawn.push(svg("polyline", { class: "path", points: points.join(" ") }));
  values.forEach((value, index) => drawn.push(svg("circle", { class: "ended", r: 4, cx: x(index), cy: y(value) })));
  if (now) drawn.push(svg("circle", { class: "running", r: 5, cx: x(returns.length), cy: y(running) }));
  const first = episode - returns.length;
  for (let index = 0; index <= slots; index += Math.ceil(slots / 10)) {
    drawn.push(svg("text", { x: x(index), y: height - 4, "text-anchor": "middle" }, first + index));
  }
  node.replaceChildren(...drawn);
  node.setAttribute("aria-label", chartLabel(values));
}

function chartLabel(values) {
  if (!values.length) return "No episode has ended yet";
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return `Returns of ${values.length} episodes: mean ${number(mean, 1)}, last ${number(values.at(-1), 1)}`;
}

/* --- the viewer -------------------------------------------------------------------------------------------- */

function toggle() {
  if (controller || retry) stop("Paused", now ? "" : "Paused");
  else connect();
}

$("toggle").addEventListener("click", toggle);
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.target.closest("button, input")) return;
  event.preventDefault();
  toggle();
});
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  connect();
});

let hiddenWhileLive = false; // a hidden page frees its session for another viewer
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenWhileLive = Boolean(controller || retry);
    if (hiddenWhileLive) stop("Paused");
  } else if (hiddenWhileLive) {
    connect();
  }
});
addEventListener("resize", () => { chart(); draw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

chart();
if (still.matches) stop("Paused", "Press Play to start the animation.");
else connect();
requestAnimationFrame(animate);
