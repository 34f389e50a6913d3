// The page of a sweep: the Pareto front, scaling curves, the table; all three show which point is chosen.

const COLORS = ["#2f7ed8", "#e8833a", "#12a594", "#8a63d2", "#b9a55a", "#c0504d", "#5b9aa0", "#7a8a3a", "#a0679b", "#98a2ad"];
const MOST_ROWS = 400;
const RATES = { tokens_per_s: "tokens/s", tokens_per_s_per_user: "tokens/s/user", tokens_per_s_per_chip: "tokens/s/chip" };
const UNITS = [["_bytes_per_s", "B/s"], ["_bytes", "B"], ["_s", "s"]];

class Points {
  constructor(data) {
    Object.assign(this, data);
    this.n = data.columns.point.length;
    this.onFront = new Set(data.front);
  }

  value(name, i) { return this.columns[name][i]; }

  label(i) {
    return this.varied.filter((name) => this.shown.includes(name)).map((name) => `${name.split(".").pop()} ${this.value(name, i)}`).join(", ");
  }

  valuesOf(name) {
    return [...new Set(this.columns[name] ?? [])].sort(compare);
  }
}

function shownNumber(name, value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (/_s$/.test(name) && !/per_s$/.test(name)) return withUnit(value * 1e12, 4);
  if (/_bytes$/.test(name)) return sizeOf(value);
  return value.toLocaleString("en", Number.isInteger(value) ? {} : { maximumSignificantDigits: 4 });
}

function sizeOf(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (bytes >= 1024 && i < units.length - 1) { bytes /= 1024; i++; }
  return `${+bytes.toPrecision(4)} ${units[i]}`;
}

class SweepPage {
  constructor(points) {
    this.points = points;
    this.specs = null;
    this.chosen = null;
    const failed = (i) => points.value("status", i) !== "done";
    this.order = [...Array(points.n).keys()].sort((a, b) => failed(a) - failed(b) || a - b);
    this.group = document.getElementById("group");
    this.x = document.getElementById("x");
    this.y = document.getElementById("y");
  }

  start() {
    this.group.addEventListener("change", () => { this.drawPareto(); this.drawScaling(); });
    for (const choice of [this.x, this.y]) choice?.addEventListener("change", () => this.drawScaling());
    Page.whenShown.set("pareto", () => { this.drawPareto(); this.listen("pareto"); });
    Page.whenShown.set("scaling", () => { this.drawScaling(); this.listen("scaling"); });
    document.getElementById("find").addEventListener("input", () => this.fillTable());
    document.getElementById("all-columns").addEventListener("change", () => this.headTable());
    document.getElementById("close").addEventListener("click", () => { location.hash = ""; this.choose(null); });
    addEventListener("keydown", (event) => { if (event.key === "Escape") this.choose(null); });
    addEventListener("hashchange", () => this.followHash());
    this.headTable();
    this.followHash();
  }

  followHash() {
    const found = /^#point-(\d+)$/.exec(location.hash);
    const place = found ? this.points.columns.point.indexOf(Number(found[1])) : -1;
    if (place >= 0) this.choose(place);
  }

  listen(figure) {
    const dots = findModel(figure, `${figure}-dots`);
    dots.selected.properties.indices.change.connect(() => {
      const [place] = dots.selected.indices;
      if (place !== undefined) this.choose(dots.data.place[place]);
    });
    const model = findModel(figure, figure);
    for (const [axis, range] of [["below", "x_range"], ["left", "y_range"]]) {
      const tick = () => { model[axis][0].ticker.ticks = logTicks(model[range].start, model[range].end); };
      for (const end of ["start", "end"]) model[range].properties[end].change.connect(tick);
      tick();
    }
    this.mark();
  }

  // --- figures ---

  colorOf(i) {
    const groups = this.points.valuesOf(this.group.value);
    return COLORS[Math.min(Math.max(groups.indexOf(this.points.columns[this.group.value]?.[i]), 0), COLORS.length - 1)];
  }

  dots(figure, x, y, alpha) {
    const { points } = this;
    const places = this.order.slice().sort((a, b) => a - b)
      .filter((i) => points.value(x, i) > 0 && points.value(y, i) > 0);
    const model = findModel(figure, figure);
    const missing = points.columns.status.filter((status) => status === "done").length - places.length;
    document.getElementById(`${figure}-says`).textContent = missing ? `Not drawn: ${missing} points at zero or unknown.` : "";
    findModel(figure, `${figure}-dots`).data = {
      x: places.map((i) => points.value(x, i)), y: places.map((i) => points.value(y, i)),
      color: places.map((i) => this.colorOf(i)), alpha: places.map(alpha), place: places,
      row: places.map((i) => points.value("point", i)), says: places.map((i) => points.label(i)),
      group: places.map((i) => String(points.columns[this.group.value]?.[i] ?? "")),
      xsays: places.map((i) => `${shownNumber(x, points.value(x, i))} (${x})`),
      ysays: places.map((i) => `${shownNumber(y, points.value(y, i))} (${y})`),
    };
    for (const [axis, range, name] of [["below", "x_range", x], ["left", "y_range", y]]) {
      model[axis][0].axis_label = readable(name);
      const values = places.map((i) => points.value(name, i));
      const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, 0]);
      const margin = Math.max((high / low) ** 0.06, 1.1);
      const [start, end] = values.length ? [low / margin, high * margin] : [1, 10];
      model[range].setv({ start, end, reset_start: start, reset_end: end });
    }
    return places;
  }

  drawPareto() {
    if (!Page.documents.has("pareto")) return;
    const { points } = this, [x, y] = ["tokens_per_s_per_user", "tokens_per_s_per_chip"];
    this.dots("pareto", x, y, (i) => (points.onFront.has(i) ? 1 : 0.25));
    findModel("pareto", "pareto-lines").data = {
      xs: [points.front.map((i) => points.value(x, i))], ys: [points.front.map((i) => points.value(y, i))], color: ["#98a2ad"],
    };
    const groups = points.valuesOf(this.group.value), legend = document.getElementById("group-legend");
    legend.replaceChildren(...groups.slice(0, COLORS.length).map((group, k) => {
      const entry = element("li"), mark = element("i");
      mark.style.background = COLORS[k];
      const others = k === COLORS.length - 1 && groups.length > COLORS.length;
      entry.append(mark, others ? `${groups.length - k} others` : String(group));
      return entry;
    }));
    this.mark();
  }

  drawScaling() {
    if (!Page.documents.has("scaling")) return;
    const { points } = this, x = this.x.value, y = this.y.value;
    const places = this.dots("scaling", x, y, () => 0.6);
    const same = points.axes[x];
    const series = new Map();
    for (const i of places) {
      const key = JSON.stringify(same.map((name) => points.value(name, i)));
      if (!series.has(key)) series.set(key, []);
      series.get(key).push(i);
    }
    const lines = [...series.values()].map((line) => this.best(line, x, y));
    findModel("scaling", "scaling-lines").data = {
      xs: lines.map((line) => line.map((i) => points.value(x, i))), ys: lines.map((line) => line.map((i) => points.value(y, i))),
      color: lines.map((line) => this.colorOf(line[0])),
    };
    this.mark();
  }

  // Return a line's points by rising x, the best where several have the same: more of a rate, less of all else.
  best(line, x, y) {
    const { points } = this, sign = /per_s/.test(y) ? -1 : 1, found = new Map();
    for (const i of line) {
      const at = points.value(x, i), known = found.get(at);
      if (known === undefined || sign * (points.value(y, i) - points.value(y, known)) < 0) found.set(at, i);
    }
    return [...found.values()].sort((a, b) => points.value(x, a) - points.value(x, b));
  }

  // --- the table ---

  columns() {
    const { points } = this;
    const names = document.getElementById("all-columns").checked ? Object.keys(points.columns) : [...points.shown, "error"];
    return names.filter((name) => points.columns[name].some((value) => value !== null));
  }

  headTable() {
    const head = document.querySelector("#table thead"), row = element("tr");
    const names = this.columns();
    for (const name of names) {
      const numeric = this.points.columns[name].some((value) => typeof value === "number");
      row.append(element("th", withoutUnit(name), numeric ? { class: "number" } : {}));
    }
    head.replaceChildren(row);
    sortable(head, (column, sign) => {
      const values = this.points.columns[names[column]];
      this.order.sort((a, b) => (values[a] === null || values[b] === null ? compare(values[a], values[b]) : sign * compare(values[a], values[b])));
      this.fillTable();
    });
    this.fillTable();
  }

  fillTable() {
    const { points } = this, names = this.columns(), body = document.querySelector("#table tbody");
    const wanted = document.getElementById("find").value.trim().toLowerCase();
    const found = this.order.filter((i) => !wanted || names.some((name) => String(points.value(name, i) ?? "").toLowerCase().includes(wanted)));
    body.replaceChildren(...found.slice(0, MOST_ROWS).map((i) => this.tableRow(i, names)));
    const shown = Math.min(found.length, MOST_ROWS);
    document.getElementById("found").textContent = shown < found.length ? `the first ${shown} of ${found.length}` : `${found.length} points`;
    this.mark();
  }

  tableRow(i, names) {
    const row = element("tr", null, { "data-place": i });
    if (this.points.onFront.has(i)) row.classList.add("front");
    for (const name of names) {
      const value = this.points.value(name, i);
      const cell = element("td", null, typeof value === "number" ? { class: "number" } : name === "error" ? { class: "error" } : {});
      if (name === "point") cell.append(element("a", value, { href: `#point-${value}` }));
      else cell.textContent = name === "error" ? (value ?? "").split("\n")[0] : shownNumber(name, value);
      row.append(cell);
    }
    row.addEventListener("click", () => this.choose(i));
    return row;
  }

  // --- the chosen point ---

  choose(place) {
    this.chosen = place;
    const panel = document.getElementById("chosen");
    panel.hidden = place === null;
    document.body.classList.toggle("choosing", place !== null);
    this.mark();
    if (place === null) return;
    const { points } = this, number = points.value("point", place);
    if (location.hash !== `#point-${number}`) history.replaceState(null, "", `#point-${number}`);
    document.getElementById("chosen-title").textContent = `point ${number}`;
    const body = document.getElementById("chosen-body"), table = element("table"), error = points.value("error", place);
    const given = points.varied.filter((name) => points.shown.includes(name));
    for (const name of [...given, ...points.results]) {
      if (points.value(name, place) === null) continue;
      const row = element("tr");
      row.append(element("td", withoutUnit(name)), element("td", shownNumber(name, points.value(name, place)), { class: "number" }));
      table.append(row);
    }
    body.replaceChildren(...(error ? [element("p", error, { class: "alert" })] : []), table);
    this.showSpec(place, body);
  }

  // All specs together are large: they are unpacked when the first one is asked for.
  async showSpec(place, body) {
    this.specs ??= unpacked("packed-later");
    const spec = (await this.specs)[this.points.fingerprint[place]];
    if (spec && this.chosen === place) body.append(element("h3", "Spec"), specTree(spec));
  }

  // Show in figures and table which point is chosen.
  mark() {
    for (const figure of ["pareto", "scaling"]) {
      const dots = findModel(figure, `${figure}-dots`);
      const at = dots ? (dots.data.place ?? []).indexOf(this.chosen) : -1;
      const now = dots?.selected.indices ?? [];
      if (dots && (at < 0 ? now.length : now[0] !== at)) dots.selected.indices = at < 0 ? [] : [at];
    }
    for (const row of document.querySelectorAll("#table tbody tr")) {
      row.classList.toggle("chosen", Number(row.dataset.place) === this.chosen);
    }
  }
}

// Return 1, 2, 5, 10 … between two numbers, only powers of ten where that is many, even steps where it is too few.
function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const ticks = [];
  for (let k = Math.floor(Math.log10(low)); 10 ** k <= high; k++) {
    for (const m of decades > 5 ? [1] : [1, 2, 5]) ticks.push(m * 10 ** k);
  }
  const seen = ticks.filter((tick) => tick >= low && tick <= high);
  if (seen.length > 2) return seen;
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
  return Array.from({ length: 7 }, (_, i) => (Math.ceil(low / step) + i) * step).filter((tick) => tick <= high);
}

// Return a column's name for people: with its unit for axes; cells of tables have theirs in them.
function readable(name) {
  const unit = UNITS.find(([end]) => name.endsWith(end) && !(name in RATES));
  return withoutUnit(name).replaceAll("$$", "$\u200b$") + (unit ? ` (${unit[1]})` : "");
}

function withoutUnit(name) {
  const unit = UNITS.find(([end]) => name.endsWith(end));
  return RATES[name] ?? { ttft_s: "TTFT", tpot_s: "TPOT" }[name] ?? (unit ? name.slice(0, -unit[0].length) : name);
}

function specTree(value) {
  const list = element("ul", null, { class: "tree" });
  for (const [key, item] of Object.entries(value)) {
    if (item === null || item === "" || (typeof item === "object" && !Object.keys(item).length)) continue;
    const entry = element("li"), name = element("b", key);
    if (typeof item === "object" && !(Array.isArray(item) && item.every((part) => typeof part !== "object"))) {
      const details = element("details"), summary = element("summary");
      summary.append(name, item.name ?? "");
      details.append(summary, specTree(item));
      entry.append(details);
    } else {
      entry.append(name, element("span", Array.isArray(item) ? `[${item.slice(0, 64).join(", ")}${item.length > 64 ? ", …" : ""}]` : String(item)));
    }
    list.append(entry);
  }
  return list;
}

function startPage() {
  new SweepPage(new Points(Page.data.points)).start();
}
