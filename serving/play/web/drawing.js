// The picture of the environment, and the chart of returns.

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
