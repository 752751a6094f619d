// The panels beside the picture: the action, its distribution, the observation and the latency.

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

/* --- versions ---------------------------------------------------------------------------------------------- */

/** Show the mean return of the last versions, the newest first. */
function versions() {
  const counted = [...played].sort(([one], [other]) => other - one).slice(0, MAX_VERSIONS);
  $("versions").hidden = !counted.length;
  $("versions").tBodies[0].replaceChildren(...counted.map(([each, { episodes, sum }]) => {
    const row = document.createElement("tr");
    row.classList.toggle("serving", each === version);
    row.append(...[each, episodes, minus(number(sum / episodes, 1))].map((value) => {
      const cell = document.createElement("td");
      cell.textContent = value;
      return cell;
    }));
    return row;
  }));
  text("mixed", mixed === 1 ? "1 episode was played by several versions and is not counted." : `${mixed} episodes were played by several versions and are not counted.`);
  $("mixed").hidden = !mixed;
}
