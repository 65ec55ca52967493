"use strict";
// Draws figures when they come near the window, in the theme that holds, saves pictures and tables, sorts and pages tables.
(() => {
  const config = { displayModeBar: false, responsive: true };
  const root = document.documentElement;
  const all = (selector, place = document) => [...place.querySelectorAll(selector)];
  const make = (tag, attributes = {}, text = "") => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    return node;
  };

  // Figures as JSON. Large ones are packed; they are unpacked when first needed, or when the page has nothing to do.
  const texts = new Map();
  const unpacked = async (id) => {
    if (texts.has(id)) return texts.get(id);
    const node = document.getElementById(id);
    if (node === null) return null;
    let text = node.textContent;
    if (node.dataset.packed) {
      const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(node.dataset.packed));
      text = await new Response(stream).text();
    }
    texts.set(id, text);
    return text;
  };

  // Colours of the theme that holds (theme.js).
  const theme = TunescopeTheme.now;
  const ink = (name) => getComputedStyle(root).getPropertyValue(name).trim();
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
  const prepared = (text) => {
    const figure = JSON.parse(text);
    for (const trace of figure.data) {
      // Without gaps Plotly writes a style attribute, which the page's policy refuses.
      if (trace.type === "heatmap") trace.xgap ||= 0.01;
      for (const bars of [trace.error_x, trace.error_y]) if (bars) bars.color ??= ink("--ink-soft");
    }
    apply(figure.layout, themed());
    return figure;
  };

  // Drawing.
  const plots = all(".plot");
  for (const node of plots) node.style.minHeight = `${node.dataset.height}px`;
  const failed = (node, error) => {
    node.removeAttribute("role");
    node.textContent = `This figure could not be drawn (${error.message}).`;
  };
  const plotted = (node, text) =>
    Plotly.newPlot(node, ...((figure) => [figure.data, figure.layout])(prepared(text)), config).then(() => {
      node.dataset.drawn = "done";
      node.dataset.theme = theme();
    });
  const draw = async (node) => {
    if (node.dataset.drawn) return;
    node.dataset.drawn = "yes";
    try {
      await plotted(node, await unpacked(node.dataset.figure));
    } catch (error) {
      failed(node, error);
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
    plots.forEach((node) => near.observe(node));
  } else {
    plots.forEach(draw);
  }
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 50));
  const packed = all("script[data-packed]").map((node) => node.id);
  const warm = () => {
    if (packed.length) unpacked(packed.shift()).then(() => idle(warm));
  };
  idle(warm);

  const repaint = () => {
    const colours = themed();
    for (const node of plots.filter((one) => one.dataset.drawn === "done")) {
      const bars = node.data.flatMap((trace, index) => (trace.error_x || trace.error_y ? [index] : []));
      const update = {};
      for (const key of ["error_x", "error_y"]) {
        if (bars.some((index) => node.data[index][key])) update[`${key}.color`] = ink("--ink-soft");
      }
      Plotly.update(node, update, colours, bars);
      node.dataset.theme = theme();
    }
  };
  TunescopeTheme.follow(repaint);
  // Paper is white, and shows what is unfolded.
  let before;
  window.addEventListener("beforeprint", () => {
    before = TunescopeTheme.chosen();
    TunescopeTheme.set("light");
    for (const node of plots.filter((one) => unfolded(one) && !one.dataset.drawn)) {
      const source = document.getElementById(node.dataset.figure);
      const text = source.dataset.packed ? texts.get(source.id) : source.textContent;
      if (text === undefined) continue; // not unpacked yet: the printer does not wait
      node.dataset.drawn = "yes";
      plotted(node, text);
    }
  });
  window.addEventListener("afterprint", () => TunescopeTheme.set(before));

  // The data of a figure, as figures/data.py reads it: what the builder gave, or the marks of the panels.
  const plain = (text) => {
    const broken = String(text ?? "").replace(/<br\s*\/?>/g, "; ").replace(/<[^>]*>/g, "");
    if (!broken.includes("&")) return broken.trim();
    const page = new DOMParser().parseFromString(broken, "text/html");
    return page.documentElement.textContent.trim();
  };
  const named = (axis, value) => {
    if (typeof value === "string") return plain(value);
    const places = axis.tickvals || [];
    const nearest = places.every((place, index) => place === index) && places.length ? Math.floor(value + 0.5) : value;
    const index = places.indexOf(nearest);
    return index >= 0 && index < (axis.ticktext || []).length ? plain(axis.ticktext[index]) : Number(value.toPrecision(10));
  };
  const COLUMNS = ["panel", "series", "x_axis", "x", "y_axis", "y", "z", "low", "high", "said"];
  const short = (number) => Number(number.toPrecision(5));
  const marks = (title, figure) => {
    const rows = [];
    for (const trace of figure.data) {
      if (trace.hoverinfo === "skip") continue;
      const [across, down] = ["x", "y"].map((letter) => figure.layout[`${letter}axis${(trace[`${letter}axis`] || letter).slice(1)}`] || {});
      const titled = (axis) => plain(axis.title?.text ?? (typeof axis.title === "string" ? axis.title : ""));
      const at = (letter, index) => (trace[letter] ? trace[letter][index] : index);
      const add = (x, y, z, low, high, said) =>
        rows.push([plain(title), plain(trace.name), titled(across), named(across, x), titled(down), named(down, y), z, low, high, plain(said)]);
      if (trace.type === "heatmap") {
        trace.z.forEach((line, row) =>
          line.forEach((value, column) => {
            if (value !== null) add(at("x", column), at("y", row), value, null, null, trace.hovertext?.[row]?.[column]);
          }),
        );
        continue;
      }
      const said = trace.hovertext || trace.text;
      for (let index = 0; index < Math.max(trace.x?.length ?? 0, trace.y?.length ?? 0); index += 1) {
        const [x, y] = [at("x", index), at("y", index)];
        if (x == null || y == null) continue;
        let ends = [null, null];
        for (const [bars, value] of [[trace.error_y, y], [trace.error_x, x]]) {
          const above = bars?.array?.[index];
          if (ends[0] === null && above != null && typeof value === "number") {
            ends = [short(value - (bars.arrayminus?.[index] ?? above)), short(value + above)];
          }
        }
        add(x, y, null, ...ends, typeof said === "string" ? said : said?.[index]);
      }
    }
    return rows;
  };
  const dataOf = async (figure) => {
    const given = await unpacked(`${figure.dataset.key}-table`);
    if (given !== null) return JSON.parse(given);
    const rows = [];
    for (const node of all(".plot", figure)) {
      const title = node.closest(".panel").querySelector(".panel-title").textContent;
      rows.push(...marks(title, JSON.parse(await unpacked(node.dataset.figure))));
    }
    return { columns: COLUMNS, rows };
  };
  // A spreadsheet must not take a text for a formula; numbers stay numbers.
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    let text = String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !Number.isFinite(Number(text))) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = ({ columns, rows }) => `\ufeff${[columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
  const save = (name, blob) => {
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  // A static copy: the panels as one drawing, with their titles.
  const svgOf = async (figure) => {
    const pieces = [];
    let top = 10;
    let width = 0;
    const place = (x, y, size, weight, text) => {
      const node = make("text", { x, y, "font-family": ink("--sans"), "font-size": size, "font-weight": weight, fill: ink("--ink") }, text);
      pieces.push(node.outerHTML);
    };
    const title = figure.dataset.title;
    if (title) place(12, (top += 16), 15, 600, title);
    top += 10;
    const nodes = all(".plot", figure);
    const across = nodes.length > 1 ? Math.min(3, nodes.length) : 1;
    const wide = across > 1 ? 400 : 720;
    for (let start = 0; start < nodes.length; start += across) {
      const line = nodes.slice(start, start + across);
      for (const [column, node] of line.entries()) {
        const label = node.closest(".panel").querySelector(".panel-title").textContent;
        if (label) place(column * wide + 12, top + 14, 13, 500, label);
        const drawn = prepared(await unpacked(node.dataset.figure));
        const height = Number(node.dataset.height);
        const url = await Plotly.toImage({ ...drawn, config }, { format: "svg", width: wide, height });
        const inner = decodeURIComponent(url.slice(url.indexOf(",") + 1));
        pieces.push(inner.replace("<svg ", `<svg x="${column * wide}" y="${top + 20}" `));
      }
      top += 30 + Math.max(...line.map((node) => Number(node.dataset.height)));
      width = Math.max(width, line.length * wide);
    }
    const scale = figure.querySelector(".scale");
    if (scale) place(12, (top += 14), 12, 400, `Colours: ${all("span:not(.ramp)", scale).map((one) => one.textContent).join("  →  ")}`);
    top += 12;
    const open = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${top}" viewBox="0 0 ${width} ${top}">`;
    return { text: `${open}<rect width="100%" height="100%" fill="${ink("--paper")}"/>${pieces.join("")}</svg>`, width, height: top };
  };
  const png = ({ text, width, height }) =>
    new Promise((resolve, reject) => {
      const image = new Image();
      image.onerror = () => reject(new Error("the drawing could not be read back"));
      image.onload = () => {
        const canvas = make("canvas", { width: 2 * width, height: 2 * height });
        canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
        canvas.toBlob(resolve, "image/png");
      };
      image.src = `data:image/svg+xml,${encodeURIComponent(text)}`;
    });
  const FORMATS = {
    csv: async (figure) => new Blob([csv(await dataOf(figure))], { type: "text/csv" }),
    svg: async (figure) => new Blob([(await svgOf(figure)).text], { type: "image/svg+xml" }),
    png: async (figure) => png(await svgOf(figure)),
  };
  for (const button of all("[data-save]")) {
    button.addEventListener("click", async () => {
      const figure = button.closest("figure");
      const format = button.dataset.save;
      try {
        save(`${figure.dataset.key}.${format}`, await FORMATS[format](figure));
      } catch (error) {
        button.textContent = `${format.toUpperCase()} failed: ${error.message}`;
      }
    });
  }

  // Tables in pages: `show(from, to)` puts these rows on the page.
  const pager = (after, said, total, size, show) => {
    const turn = (text, step) => {
      const button = make("button", { type: "button", class: "turn" }, text);
      button.addEventListener("click", () => go(place + step));
      return button;
    };
    let place = 0;
    const last = Math.ceil(total / size) - 1;
    const where = make("span", { "aria-live": "polite" });
    const group = make("div", { class: "pager", role: "group", "aria-label": `Pages of ${said}` });
    const [first, back, on, end] = [turn("First", -Infinity), turn("Previous", -1), turn("Next", 1), turn("Last", Infinity)];
    const go = (wanted) => {
      place = Math.min(last, Math.max(0, wanted));
      const to = Math.min(total, (place + 1) * size);
      show(place * size, to);
      where.textContent = `rows ${(place * size + 1).toLocaleString("en")} to ${to.toLocaleString("en")} of ${total.toLocaleString("en")}`;
      // A button that cannot be used stays focusable, so that the keyboard does not fall out of the group.
      for (const one of [first, back]) one.setAttribute("aria-disabled", place === 0);
      for (const one of [on, end]) one.setAttribute("aria-disabled", place === last);
    };
    group.append(first, back, where, on, end);
    after.after(group);
    go(0);
    return go;
  };
  const PAGE = 25;
  const pages = new Map();
  const saidOf = (table) => {
    const near = table.closest("details")?.querySelector("summary") ?? table.closest("section")?.querySelector("h2");
    return (table.caption?.textContent || near?.textContent || "table").trim().replace(/\s+/g, " ");
  };
  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    if (body.rows.length <= PAGE * 1.4) continue;
    const show = (from, to) => [...body.rows].forEach((row, index) => (row.hidden = index < from || index >= to));
    pages.set(table, pager(table.closest(".scroll") ?? table, saidOf(table), body.rows.length, PAGE, show));
  }
  // Click a heading to sort, again to turn round. Empty cells stay last.
  for (const button of all("table.sortable .sort")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const table = heading.closest("table");
      const body = table.tBodies[0];
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
      pages.get(table)?.(0);
    });
  }
  // The data of a figure as a table under it: what the figure says, for readers who do not see it.
  for (const button of all("[data-table]")) {
    button.addEventListener("click", async () => {
      const figure = button.closest("figure");
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) {
        figure.querySelector(".figure-data").remove();
        return;
      }
      const place = make("div", { class: "figure-data" });
      const scroll = make("div", { class: "scroll" });
      const table = make("table");
      const { columns, rows } = await dataOf(figure);
      const used = columns.map((_, index) => index).filter((index) => rows.some((row) => row[index] !== null && row[index] !== ""));
      const head = make("tr");
      head.append(...used.map((index) => make("th", { scope: "col" }, columns[index].replaceAll("_", " "))));
      const body = make("tbody");
      table.append(make("caption", {}, `Data of ${figure.dataset.title || "this figure"}`), make("thead"), body);
      table.tHead.append(head);
      scroll.append(table);
      place.append(scroll);
      figure.append(place);
      const show = (from, to) =>
        body.replaceChildren(
          ...rows.slice(from, to).map((row) => {
            const line = make("tr");
            line.append(...used.map((index) => make("td", typeof row[index] === "number" ? { class: "num" } : {}, row[index] ?? "")));
            return line;
          }),
        );
      if (rows.length > PAGE) pager(scroll, `the data of ${figure.dataset.title || "this figure"}`, rows.length, PAGE, show);
      else show(0, rows.length);
      reach(scroll);
    });
  }

  // What scrolls sideways is reached by keyboard, and says what it holds.
  const reach = (node) => {
    node.dataset.said ??= node.getAttribute("aria-label") || saidOf(node.querySelector("table") ?? node);
    const needed = node.scrollWidth > node.clientWidth + 1;
    for (const [name, value] of Object.entries({ tabindex: "0", role: "group", "aria-label": node.dataset.said })) {
      if (needed) node.setAttribute(name, value);
      else node.removeAttribute(name);
    }
  };
  const scrolling = all(".scroll, pre");
  if ("ResizeObserver" in window) {
    const sizes = new ResizeObserver((entries) => entries.forEach((entry) => reach(entry.target)));
    scrolling.forEach((node) => sizes.observe(node));
  } else {
    scrolling.forEach(reach);
  }

  // Contents: mark the section being read.
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
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
    all("main section[id]").forEach((section) => links.has(section.id) && reading.observe(section));
  }
})();
