// The topology's links, coloured by what they carried: in the whole run (0 of the slider) or in one window of time.

const RAMP = [[59, 130, 246], [245, 158, 11], [220, 38, 38]];
const UNUSED = "#98a2ad80";

function rampColor(share) {
  const at = Math.min(Math.max(share, 0), 1) * 2, i = Math.min(Math.floor(at), 1);
  const [r, g, b] = RAMP[i].map((low, k) => Math.round(low + (RAMP[i + 1][k] - low) * (at - i)));
  return `rgb(${r}, ${g}, ${b})`;
}

class Links {
  constructor(data) {
    Object.assign(this, data);
    this.n = this.edges_ps.length - 1;
    const busier = (a, b) => Math.max(a.reduce((x, y) => Math.max(x, y), 0), b.reduce((x, y) => Math.max(x, y), 0));
    this.topWindow = this.there.reduce((top, row, e) => Math.max(top, busier(row, this.back[e])), 0) || 1;
    this.topWhole = busier(this.whole_there, this.whole_back) || 1;
  }

  // Use of every edge, there and back, in parts of 10,000: in the whole run (window -1) or a window.
  use(window) {
    if (window < 0) return [this.whole_there, this.whole_back];
    return [this.there, this.back].map((rows) => rows.map((row) => row[window] ?? 0));
  }
}

function startLinks() {
  const links = new Links(Page.data.links);
  const slider = document.getElementById("window"), says = document.getElementById("window-says");
  const play = document.getElementById("play");
  const percent = (part) => `${(part / 100).toLocaleString("en", { maximumFractionDigits: 2 })}%`;
  const paint = () => {
    const window = slider ? slider.valueAsNumber - 1 : -1;
    const [there, back] = links.use(window);
    const top = window < 0 ? links.topWhole : links.topWindow;
    const source = findModel("topology", "topology-source");
    if (source) {
      const busier = there.map((part, e) => Math.max(part, back[e]));
      source.data = { ...source.data, color: busier.map((part) => (part ? rampColor(part / top) : UNUSED)),
                      there: there.map(percent), back: back.map(percent) };
    }
    const scale = document.getElementById("scale-top");
    if (scale) scale.textContent = percent(top);
    if (!slider) return;
    const [unit, size] = links.unit, time = (i) => +(links.edges_ps[i] / size).toPrecision(5);
    says.textContent = window < 0 ? "whole run" : `${time(window)} to ${time(window + 1)} ${unit}`;
    const cursor = findModel("busiest", "cursor");
    if (cursor) cursor.setv({ visible: window >= 0, location: (links.edges_ps[window] + links.edges_ps[window + 1]) / 2 / size });
  };
  if (slider) {
    slider.max = links.n;
    slider.addEventListener("input", paint);
    let timer = null;
    play.addEventListener("click", () => {
      if (timer) clearInterval(timer);
      timer = timer ? null : setInterval(() => {
        slider.value = slider.valueAsNumber >= links.n ? 1 : slider.valueAsNumber + 1;
        paint();
      }, 120);
      play.textContent = timer ? "stop" : "play";
    });
  }
  Page.whenShown.set("topology", () => {
    const figure = findModel("topology", "topology"), { shape, most } = figure.tags[0];
    figure.height = Math.round(Math.min(most, Math.max(200, 80 + shape * document.body.clientWidth)));
    paint();
  });
  Page.whenShown.set("busiest", () => {
    const source = findModel("busiest", "busiest-source");
    source.selected.properties.indices.change.connect(() => {
      const [place] = source.selected.indices;
      if (place === undefined) return;
      slider.value = source.data.window[place] + 1;
      paint();
    });
    paint();
  });
}
