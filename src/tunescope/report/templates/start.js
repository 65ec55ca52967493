"use strict";
// Draws each figure when it comes near the window, in the page's theme; sorts tables; follows the reader.
(() => {
  const config = { displayModeBar: false, responsive: true };
  const plots = [...document.querySelectorAll(".plot")];
  for (const node of plots) node.style.minHeight = `${node.dataset.height}px`;

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const themed = () => ({
    "font.color": ink("--ink-soft"),
    "hoverlabel.bgcolor": ink("--paper"),
    "hoverlabel.bordercolor": ink("--line-strong"),
    "hoverlabel.font.color": ink("--ink"),
  });

  const apply = (layout, change) => {
    for (const [path, value] of Object.entries(change)) {
      const keys = path.split(".");
      const last = keys.pop();
      let place = layout;
      for (const key of keys) place = place[key] ??= {};
      place[last] = value;
    }
    return layout;
  };

  const draw = (node) => {
    if (node.dataset.drawn) return;
    node.dataset.drawn = "yes";
    try {
      const figure = JSON.parse(document.getElementById(node.dataset.figure).textContent);
      for (const trace of figure.data) if (trace.error_y) trace.error_y.color = ink("--ink-soft");
      Plotly.newPlot(node, figure.data, apply(figure.layout, themed()), config);
    } catch (error) {
      node.textContent = `This figure could not be drawn (${error.message}).`;
    }
  };

  const unfolded = (node) => !node.closest("details:not([open])");
  if ("IntersectionObserver" in window) {
    const near = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          near.unobserve(entry.target);
          draw(entry.target);
        }
      },
      { rootMargin: "600px 0px" },
    );
    // What is in the first window is drawn at once; the observer waits for a frame.
    const seen = (node) => unfolded(node) && node.getBoundingClientRect().top < window.innerHeight;
    plots.forEach((node) => (seen(node) ? draw(node) : near.observe(node)));
  } else {
    plots.forEach(draw);
  }

  const repaint = () => plots.filter((node) => node.dataset.drawn).forEach((node) => Plotly.relayout(node, themed()));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  window.addEventListener("beforeprint", () => plots.filter(unfolded).forEach(draw));

  for (const button of document.querySelectorAll("[data-save]")) {
    button.addEventListener("click", () => {
      const node = document.querySelector(`[data-figure="${button.dataset.save}"]`);
      draw(node);
      Plotly.downloadImage(node, { format: "svg", filename: button.dataset.save });
    });
  }

  // Tables: click a heading to sort, again to turn round. Empty cells stay last.
  for (const button of document.querySelectorAll("table.sortable .sort")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const body = heading.closest("table").tBodies[0];
      const column = heading.cellIndex;
      const falling = heading.getAttribute("aria-sort") === "ascending";
      for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const numeric = heading.classList.contains("num");
      const key = (row) => row.cells[column].dataset.key;
      const compare = (a, b) => {
        if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
        const order = numeric ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b));
        return falling ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  }

  // Contents: mark the section being read.
  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  if ("IntersectionObserver" in window) {
    const reading = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          for (const link of links.values()) link.removeAttribute("aria-current");
          links.get(entry.target.id)?.setAttribute("aria-current", "true");
        }
      },
      { rootMargin: "-20% 0px -70% 0px" },
    );
    document.querySelectorAll("main section[id]").forEach((section) => links.has(section.id) && reading.observe(section));
  }
})();
