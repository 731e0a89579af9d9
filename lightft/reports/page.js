"use strict";

// Click on a column's heading sorts the table by it: numbers by their value, the largest first; "–" stays last.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const numeric = heading.classList.contains("number");
      const first = numeric ? "descending" : "ascending";
      const order = heading.ariaSort === first ? (numeric ? "ascending" : "descending") : first;
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...body.rows].sort((a, b) => {
        const [left, right] = [a.cells[column], b.cells[column]];
        if (!numeric) return sign * left.textContent.localeCompare(right.textContent, "en", { numeric: true });
        const [x, y] = [left.dataset.value, right.dataset.value];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        // Not by subtraction: some numbers are infinite.
        return sign * ((Number(x) > Number(y)) - (Number(x) < Number(y)));
      });
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      body.append(...rows);
    });
  });
}

// Examples by kind and type, some at a time.
const filter = document.getElementById("filter");
if (filter) {
  const AT_A_TIME = 10;
  const examples = [...document.querySelectorAll(".examples > li")];
  const kinds = [...filter.querySelectorAll("button")];
  const type = filter.querySelector("select");
  const more = document.getElementById("more");
  const showing = document.getElementById("showing");
  const remark = showing.textContent;
  let most = AT_A_TIME;

  const show = () => {
    const kind = kinds.find((button) => button.ariaPressed === "true").dataset.kind;
    const wanted = examples.filter(
      (example) =>
        (!kind || example.dataset.kind === kind) &&
        (!type || !type.value || example.dataset.types.split(" ").includes(type.value)),
    );
    const shown = new Set(wanted.slice(0, most));
    for (const example of examples) example.hidden = !shown.has(example);
    more.hidden = shown.size === wanted.length;
    showing.textContent = `Showing ${shown.size} of ${wanted.length}. ${remark}`;
  };

  for (const button of kinds) {
    button.addEventListener("click", () => {
      for (const other of kinds) other.ariaPressed = String(other === button);
      most = AT_A_TIME;
      show();
    });
  }
  type?.addEventListener("change", () => {
    most = AT_A_TIME;
    show();
  });
  more.addEventListener("click", () => {
    most += AT_A_TIME;
    show();
  });
  filter.hidden = false;
  show();
}
