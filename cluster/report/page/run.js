// The page of a run.

function startPage() {
  startTimeline(Page.data.steps);
  startLinks();
  sortableTables();
  for (const box of document.querySelectorAll("[data-capacity]")) {
    const scale = () => {
      const figure = findModel(box.dataset.capacity, box.dataset.capacity);
      const { held, capacity } = figure.tags[0];
      figure.y_range.end = box.checked ? capacity : held;
    };
    box.addEventListener("change", scale);
    Page.whenShown.set(box.dataset.capacity, scale);
  }
}
