// Sorting, filtering and shortening of tables; the page reads well without it.
document.documentElement.classList.add("js");

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const order = new Intl.Collator(undefined, { numeric: true });
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // not measured: last either way
      const [p, q] = [Number(x), Number(y)];
      const difference = Number.isNaN(p) || Number.isNaN(q) ? order.compare(x, y) : p - q;
      return ascending ? difference : -difference;
    });
    body.append(...rows);
  });
}

for (const button of document.querySelectorAll("button[data-expands]")) {
  button.addEventListener("click", () => {
    document.getElementById(button.dataset.expands).classList.remove("short");
    button.hidden = true;
  });
}

for (const input of document.querySelectorAll("input[data-filters]")) {
  input.addEventListener("input", () => {
    const table = document.getElementById(input.dataset.filters);
    const wanted = input.value.trim().toLowerCase();
    table.classList.toggle("filtered", wanted !== "");
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    }
  });
}

// Paper cannot unfold anything; the full recipe stays folded there, as it is in run.json too.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details[data-print]:not([open])")) {
    fold.open = true;
    fold.dataset.folded = "";
  }
});
addEventListener("afterprint", () => {
  for (const fold of document.querySelectorAll("details[data-folded]")) {
    fold.open = false;
    delete fold.dataset.folded;
  }
});
