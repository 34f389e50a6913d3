// The timeline: of all operations those in sight are drawn; what is narrower than a pixel goes into blocks of the
// kind that takes most of them.

class Timeline {
  constructor(data) {
    Object.assign(this, data);
    const n = data.gap.length;
    this.start = new Float64Array(n);
    this.end = new Float64Array(n);
    this.first = [];
    let i = 0;
    for (const row of data.rows) {
      this.first.push(i);
      let at = 0;
      for (const last = i + row.n; i < last; i++) {
        this.start[i] = at + data.gap[i];
        at = this.end[i] = this.start[i] + data.length[i];
      }
    }
    this.first.push(i);
  }

  // The place of the first operation of a row that ends after a time.
  firstAfter(row, time) {
    let low = this.first[row], high = this.first[row + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.end[middle] <= time) low = middle + 1; else high = middle;
    }
    return low;
  }

  // Return what to draw between two times where a pixel is `pixel` ps wide.
  visible(from, to, pixel) {
    const size = this.unit[1];
    const drawn = { left: [], right: [], top: [], bottom: [], color: [], row: [], operation: [], layer: [], start: [], length: [] };
    const put = (row, left, right, kind, operation, layer) => {
      drawn.left.push(left / size); drawn.right.push(right / size);
      drawn.top.push(row + 0.08); drawn.bottom.push(row + 0.92);
      drawn.color.push(this.kinds[kind].color); drawn.operation.push(operation); drawn.layer.push(layer);
      drawn.row.push(this.where(row)); drawn.start.push(withUnit(left)); drawn.length.push(withUnit(right - left));
    };
    const spent = new Float64Array(this.kinds.length);
    for (let row = 0; row < this.rows.length; row++) {
      let blockStart = -1, blockEnd = 0, count = 0;
      const flush = () => {
        if (count) {
          let most = 0;
          for (let k = 1; k < spent.length; k++) if (spent[k] > spent[most]) most = k;
          put(row, blockStart, blockEnd, most, `${count} operations, most of the time: ${this.kinds[most].name}`, "–");
        }
        count = 0;
        spent.fill(0);
      };
      for (let i = this.firstAfter(row, from); i < this.first[row + 1] && this.start[i] < to; i++) {
        const start = this.start[i], end = this.end[i];
        if (end - start >= 1.5 * pixel) {
          flush();
          const layer = this.layer[i];
          put(row, start, end, this.kind[i], this.names[this.name[i]], layer < 0 ? "–" : String(layer));
          continue;
        }
        if (count && end - blockStart > 2 * pixel) flush();
        if (!count) blockStart = start;
        spent[this.kind[i]] += end - start;
        blockEnd = end;
        count++;
      }
      flush();
    }
    return drawn;
  }

  where(row) {
    const { label, chip } = this.rows[row];
    return label.startsWith("chip") ? label : `chip ${chip}, ${label}`;
  }
}

function startTimeline(steps) {
  const timeline = new Timeline(Page.data.timeline);
  const size = timeline.unit[1], total = timeline.total_ps / size;
  Page.whenShown.set("timeline", () => {
    const figure = findModel("timeline", "timeline"), source = findModel("timeline", "timeline-source");
    const range = figure.x_range;
    let asked = false;
    const draw = () => {
      asked = false;
      const from = range.start * size, to = range.end * size;
      source.data = timeline.visible(from, to, (to - from) / Math.max(figure.inner_width || 800, 50));
    };
    const ask = () => {
      if (!asked) requestAnimationFrame(draw);
      asked = true;
    };
    for (const property of [range.properties.start, range.properties.end, figure.properties.inner_width]) {
      property.change.connect(ask);
    }
    draw();
    const show = (from, to) => {
      const length = Math.min(Math.max(to - from, total * 1e-7), total);
      const start = Math.min(Math.max(from, 0), total - length);
      range.setv({ start, end: start + length });
    };
    const first = steps.ttft_s * 1e12 / size, step = (steps.tpot_s ?? 0) * 1e12 / size;
    const views = {
      whole: () => [0, total],
      first: () => [0, first],
      step: () => [first, first + (step || total - first)],
      in: () => [range.start + (range.end - range.start) / 4, range.end - (range.end - range.start) / 4],
      out: () => [range.start - (range.end - range.start) / 2, range.end + (range.end - range.start) / 2],
    };
    for (const button of document.querySelectorAll("[data-show]")) {
      button.onclick = () => show(...views[button.dataset.show]());
    }
  });
}
