// Tables that a click on a heading sorts; cells may hold their value for sorting in data-value.

function cellValue(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

// Let the headings of a table call `sort(column, sign)`; sign is 1 for ascending.
function sortable(head, sort) {
  [...head.querySelectorAll("th")].forEach((th, column) => {
    const button = element("button", th.textContent, { type: "button" });
    th.replaceChildren(button);
    button.addEventListener("click", () => {
      const ascending = th.getAttribute("aria-sort") !== "ascending";
      head.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(column, ascending ? 1 : -1);
    });
  });
}

function sortableTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    sortable(table.tHead, (column, sign) => {
      const rows = [...body.rows];
      rows.sort((a, b) => sign * compare(cellValue(a, column), cellValue(b, column)));
      body.append(...rows);
    });
  }
}
