// The page's frame: unpacks the data, puts figures in place as they come into sight, follows the reader's theme.

const Page = { data: null, documents: new Map(), whenShown: new Map() };

async function unpacked(id) {
  const text = document.getElementById(id).textContent;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function restyle(doc) {
  const soft = css("--soft"), line = css("--line"), ink = css("--ink");
  for (const model of doc._all_models.values()) {
    if (/Axis$/.test(model.type)) {
      model.setv({ axis_label_text_color: soft, major_label_text_color: soft, axis_line_color: line,
                   major_tick_line_color: model.major_tick_line_color === null ? null : line });
    } else if (model.type === "Grid" && model.grid_line_color !== null) {
      model.setv({ grid_line_color: line, grid_line_alpha: 0.6 });
    } else if (model.type === "Text" && model.tags.includes("ink")) {
      model.setv({ text_color: { value: ink } });
    }
  }
}

function findModel(figure, name) {
  return Page.documents.get(figure)?.get_model_by_name(name) ?? null;
}

async function showFigure(place) {
  const name = place.dataset.figure;
  const views = await Bokeh.embed.embed_item(Page.data.figures[name], place.id);
  const [view] = [...views], doc = view.model.document;
  Page.documents.set(name, doc);
  restyle(doc);
  if (matchMedia("(pointer: coarse)").matches) { // a finger scrolls the page; the toolbar turns panning on
    for (const model of doc._all_models.values()) {
      if (model.type === "Toolbar") model.active_drag = null;
    }
  }
  Page.whenShown.get(name)?.(doc);
  keepToolbar(view, place);
  place.style.minHeight = "";
  place.dataset.shown = "yes";
}

// A toolbar that was laid out while its figure changed its width shows none of its tools: lay it out once more.
function keepToolbar(view, place) {
  let timer = null, width = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    clearTimeout(timer);
    timer = setTimeout(() => view.invalidate_layout(), 200);
  }).observe(place);
}

// Figures near the reader's eyes come first; the others follow when they come near, or when the browser is idle.
function watchFigures() {
  const waiting = new Set(document.querySelectorAll("[data-figure]"));
  let chain = Promise.resolve();
  const show = (place) => {
    if (!waiting.delete(place)) return;
    chain = chain.then(() => showFigure(place)).then(() => new Promise((done) => setTimeout(done)));
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) show(entry.target);
  }, { rootMargin: "500px" });
  for (const place of waiting) watcher.observe(place);
}

function withUnit(ps, digits = 6) {
  for (const [unit, size] of [["s", 1e12], ["ms", 1e9], ["us", 1e6], ["ns", 1e3]]) {
    if (Math.abs(ps) >= size) return `${+(ps / size).toPrecision(digits)} ${unit}`;
  }
  return `${ps} ps`;
}

function element(tag, words, attributes = {}) {
  const made = document.createElement(tag);
  if (words !== undefined && words !== null) made.textContent = words;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const doc of Page.documents.values()) restyle(doc);
});

addEventListener("DOMContentLoaded", async () => {
  Page.data = await unpacked("packed");
  startPage();
  watchFigures();
  document.documentElement.dataset.ready = "yes";
});
