// Tables are sorted by a click on a heading: numbers the largest first, texts from A; once more turns it round.
const number = cell => Number(cell.textContent.replace(/[,%●]/g, "").trim() || NaN);

function sort(table, column, heading) {
  const rows = [...table.tBodies[0].rows];
  const numeric = rows.some(row => !Number.isNaN(number(row.cells[column])));
  const before = heading.getAttribute("aria-sort");
  const up = before ? before === "descending" : !numeric;
  const compare = (a, b) => {
    const [x, y] = [a.cells[column], b.cells[column]];
    if (!numeric) return x.textContent.localeCompare(y.textContent) * (up ? 1 : -1);
    const [m, n] = [number(x), number(y)];
    if (Number.isNaN(m) || Number.isNaN(n)) return Number.isNaN(m) - Number.isNaN(n);  // what is no number stays last
    return up ? m - n : n - m;
  };
  table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  table.tBodies[0].append(...rows.sort(compare));
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.tabIndex = 0;
    heading.title = "Sort by this column";
    heading.onclick = () => sort(table, column, heading);
    heading.onkeydown = event => { if (event.key === "Enter") sort(table, column, heading); };
  });
}

// One threshold for all labels: the table of labels is computed anew from what the page holds of its rows. For each label
// and each threshold of a grid that is how many rows with the label, and how many without, lie above it.
function slider(box) {
  const data = JSON.parse(box.querySelector("script").textContent);
  const range = box.querySelector("input");
  const rows = [...box.parentElement.querySelector("table").tBodies[0].rows];
  const places = rows.map(row => Number(row.dataset.row));
  const first = rows.map(row => [...row.cells].map(cell => cell.textContent));
  const share = (part, whole) => (whole ? part / whole : 0);

  function show(step) {
    const total = {right: 0, wrong: 0, gold: 0, f1: 0};
    rows.forEach((row, i) => {
      const label = data.labels[places[i]];
      const [right, wrong] = [label.right[step], label.wrong[step]];
      const f1 = share(2 * right, right + wrong + label.gold);
      total.right += right, total.wrong += wrong, total.gold += label.gold, total.f1 += f1;
      const found = [share(right, right + wrong), share(right, label.gold), f1, step / data.steps];
      data.columns.forEach((column, k) => { row.cells[column].textContent = found[k].toFixed(3); });
    });
    const told = {
      "macro F1": total.f1 / rows.length,
      "micro F1": share(2 * total.right, total.right + total.wrong + total.gold),
      "Jaccard": data.jaccard[step],
      "labels/text": (total.right + total.wrong) / data.rows,
    };
    box.querySelector("output").textContent = (step / data.steps).toFixed(2);
    box.querySelector(".told").textContent =
      Object.entries(told).map(([name, value]) => `${name} ${value.toFixed(3)}`).join("   ");
  }

  range.oninput = () => show(Number(range.value));
  box.querySelector("button").onclick = () => {
    rows.forEach((row, i) => data.columns.forEach(column => { row.cells[column].textContent = first[i][column]; }));
    box.querySelector("output").textContent = "–";
    box.querySelector(".told").textContent = "";
  };
  box.hidden = false;
}

document.querySelectorAll(".slider").forEach(slider);
