"use strict";
(() => {
  document.documentElement.classList.add("js");

  // -- figures: colours are names ("@searched", "@searched/0.2") until the reader's scheme is known --
  const element = document.getElementById("charts");
  const charts = element ? JSON.parse(element.textContent) : {};
  const touch = matchMedia("(pointer: coarse)").matches;

  const colored = (value, style) => {
    if (Array.isArray(value)) return value.map((item) => colored(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, colored(v, style)]));
    }
    const found = typeof value === "string" && /^@(\w+)(?:\/([\d.]+))?$/.exec(value);
    if (!found) return value;
    const hex = style.getPropertyValue("--" + found[1]).trim();
    if (!found[2]) return hex;
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${found[2]})`;
  };

  const button = (text, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "save";
    made.textContent = text;
    made.addEventListener("click", action);
    return made;
  };

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const look = colored({
      paper_bgcolor: "@card", plot_bgcolor: "@card",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "@ink" },
      hoverlabel: { bgcolor: "@card", bordercolor: "@line", font: { color: "@ink", size: 13 },
        align: "left" },
      dragmode: touch ? false : "zoom",
    }, style);
    // No tool bar: one of Plotly's own buttons uploads the figure to its makers' server.
    const config = { responsive: true, displayModeBar: false, showSendToCloud: false };
    for (const place of document.querySelectorAll("[data-chart]")) {
      const chart = colored(charts[place.dataset.chart], style);
      Plotly.react(place, chart.data, { ...chart.layout, ...look }, config);
    }
  };
  if (Object.keys(charts).length) {
    draw();
    for (const place of document.querySelectorAll("[data-chart]")) {
      const save = button("Save as PNG", () => Plotly.downloadImage(place, {
        format: "png", filename: place.dataset.chart, scale: 2,
        width: Math.max(place.clientWidth, 640), height: place.clientHeight,
      }));
      place.parentElement.querySelector(".under").append(save);
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  // -- tables: sort by a column, save as CSV --
  const value = (row, column) => {
    const cell = row.cells[column];
    const raw = cell.dataset.v ?? cell.textContent.trim();
    const asNumber = Number(raw);
    return raw !== "" && !Number.isNaN(asNumber) ? asNumber : raw;
  };
  const missing = (x) => x === "–" || x === "";
  const compare = (a, b) => {
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  };
  const quote = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const titleOf = (th) => th.querySelector("button").textContent.trim();

  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((th, column) => th.querySelector("button").addEventListener("click", () => {
      const first = th.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = th.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows].sort((r, s) => {
        const [a, b] = [value(r, column), value(s, column)];
        // What is missing stays at the end either way.
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return sign * compare(a, b);
      });
      table.tBodies[0].append(...rows);
    }));
    if (table.querySelector(".minor")) {
      const more = button("Show all columns", () => {
        table.classList.toggle("all");
        more.textContent = table.classList.contains("all") ? "Show fewer" : "Show all columns";
      });
      more.classList.add("more");
      table.closest(".scroll").after(more);
    }
    if (table.tBodies[0].rows.length < 2) continue;
    table.closest(".scroll").after(button("Save as CSV", () => {
      const lines = [heads.map((th) => quote(titleOf(th)))];
      for (const row of table.tBodies[0].rows) {
        lines.push([...row.cells].map((cell) =>
          quote(cell.dataset.v ?? cell.textContent.trim().replace(/^–$/, ""))));
      }
      const text = lines.map((line) => line.join(",")).join("\r\n") + "\r\n";
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = table.dataset.name + ".csv";
      link.click();
      URL.revokeObjectURL(link.href);
    }));
  }

  // -- links from a number to its records: unfold them, and mark all rows of the group --
  const follow = () => {
    const target = decodeURIComponent(location.hash.slice(1));
    let first = null;
    for (const row of document.querySelectorAll("tr[data-group]")) {
      const here = target !== "" && row.dataset.group === target;
      row.classList.toggle("target", here);
      first ??= here ? row : null;
    }
    if (!first) return;
    const folded = first.closest("details");
    if (folded) folded.open = true;
    first.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", follow);
  follow();

  for (const copy of document.querySelectorAll(".copy")) {
    copy.addEventListener("click", async () => {
      const text = copy.parentElement.querySelector("code").textContent;
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        // Without permission, mark the text so that one key press copies it.
        getSelection().selectAllChildren(copy.parentElement.querySelector("code"));
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }
})();
