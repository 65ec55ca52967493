"use strict";
// Draws one text under base and tuned: predictions, deciding words, the grid of switches. Used by the report (numbers
// worked out beforehand) and by the local page (numbers asked for). All foreign text goes in as text nodes.
const TunescopeBench = (() => {
  const NAMES = { base: "Base", tuned: "Tuned" };

  const visible = (text) =>
    String(text).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

  const make = (tag, properties = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name === "class") node.className = value;
      else if (name.startsWith("aria-") || name === "role" || name === "scope" || name === "colspan") node.setAttribute(name, value);
      else node[name] = value;
    }
    for (const child of children) if (child !== null && child !== undefined) node.append(child);
    return node;
  };

  const logSumExp = (values) => {
    const most = Math.max(...values);
    return most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0));
  };
  const probabilities = (logits) => {
    const all = logSumExp(logits);
    return logits.map((value) => Math.exp(value - all));
  };
  const margin = (logits, label) => logits[label] - logSumExp(logits.filter((_, index) => index !== label));
  const best = (values) => values.indexOf(Math.max(...values));

  const shown = (p) => (p > 0.9995 && p < 1 ? ">0.999" : p < 0.0005 && p > 0 ? "<0.001" : p.toFixed(3));
  const signed = (value) => `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`;

  // What has words on it is tinted no deeper than keeps them readable.
  const tint = (value, most, deepest = 100) => {
    const share = most > 0 ? Math.min(1, Math.abs(value) / most) : 0;
    const side = value > 0 ? "--for" : "--against";
    return `color-mix(in srgb, var(${side}) ${Math.round(deepest * share ** 0.75)}%, var(--wash))`;
  };

  // now and was: {model: logits}; was is the same where nothing is switched off.
  const predictions = (node, labels, models, now, was, follow) => {
    const moved = models.some((model) => now[model].some((value, index) => value !== was[model][index]));
    const head = make("tr", {}, make("th", { scope: "col" }, "Class"));
    for (const model of models) head.append(make("th", { scope: "col" }, `${NAMES[model]}${moved ? ": before \u2192 now" : ""}`));
    const order = labels.map((_, index) => index);
    const body = make("tbody");
    const p = Object.fromEntries(models.map((model) => [model, [probabilities(now[model]), probabilities(was[model])]]));
    for (const label of order) {
      const row = make("tr", { class: label === follow ? "followed" : "" });
      row.append(make("th", { scope: "row", title: visible(labels[label]) }, make("bdi", {}, visible(labels[label]))));
      for (const model of models) {
        const [after, before] = [p[model][0][label], p[model][1][label]];
        const fill = make("span", { class: "bench-fill" });
        fill.style.width = `${(100 * after).toFixed(2)}%`;
        const track = make("span", { class: "bench-track", "aria-hidden": "true" }, fill);
        if (Math.abs(after - before) >= 0.005) {
          const mark = make("span", { class: "bench-was" });
          mark.style.left = `calc(${(100 * before).toFixed(2)}% - 1px)`;
          track.append(mark);
        }
        const value = make("span", { class: "bench-value" });
        if (moved) value.append(make("span", { class: "was" }, `${shown(before)} \u2192 `));
        value.append(make("span", { class: "now" }, shown(after)));
        const top = best(p[model][0]) === label;
        const cell = make("td", { class: `bench-${model}${top ? " bench-top" : ""}` }, make("span", {}, track, value));
        cell.dataset.model = model;
        cell.dataset.label = label;
        cell.dataset.probability = after.toFixed(6);
        row.append(cell);
      }
      body.append(row);
    }
    node.replaceChildren(make("table", { class: "bench-predictions" }, make("thead", {}, head), body));
  };

  // effects: {model: [effect a word]}: how far the followed margin falls without the word.
  const words = (node, text, spans, models, effects) => {
    const children = [];
    for (const model of models) {
      const own = effects[model] || [];
      const most = Math.max(1e-9, ...own.filter((value) => value !== undefined).map(Math.abs));
      const line = make("p", { class: "bench-words" });
      let last = 0;
      spans.forEach(([start, end], index) => {
        const part = make("bdi", {}, visible(text.slice(start, end)));
        if (own[index] !== undefined) {
          part.style.backgroundColor = tint(own[index], most, 55);
          part.title = `without it the margin ${own[index] >= 0 ? "falls" : "rises"} by ${Math.abs(own[index]).toFixed(2)}`;
        }
        line.append(visible(text.slice(last, start)), part);
        last = end;
      });
      line.append(visible(text.slice(last)));
      const ranked = own.map((value, index) => [value, index]).filter(([value]) => value !== undefined);
      ranked.sort((one, other) => Math.abs(other[0]) - Math.abs(one[0]));
      const top = make("p", { class: "bench-top-words" });
      ranked.slice(0, 4).forEach(([value, index], place) => {
        const [start, end] = spans[index];
        if (place) top.append(" \u00b7 ");
        top.append(make("b", {}, make("bdi", {}, visible(text.slice(start, end)))), ` ${signed(value)}`);
      });
      children.push(make("div", { class: "bench-line" }, make("span", { class: "who" }, NAMES[model]), make("div", {}, line, top)));
    }
    node.replaceChildren(...children);
  };

  const componentsOf = (layer, heads) => [
    ...Array.from({ length: heads }, (_, head) => `L${layer}H${head}`),
    `L${layer}.attention`,
    `L${layer}.mlp`,
  ];

  // A grid of buttons for one model; arrow keys walk, space and enter press.
  const grid = (model, layers, heads, handlers) => {
    const cells = new Map();
    const step = Math.max(1, Math.ceil(heads / 16));
    const head = make("tr", {}, make("td", { class: "side" }));
    for (let index = 0; index < heads; index += 1) head.append(make("th", { scope: "col" }, index % step ? "" : `${index}`));
    head.append(make("td", { class: "gap" }), make("th", { scope: "col", title: "all heads of the layer together" }, "att"), make("th", { scope: "col", title: "the layer's MLP" }, "mlp"));
    const body = make("tbody");
    const rows = [];
    for (let layer = layers - 1; layer >= 0; layer -= 1) {
      const row = make("tr", {}, make("th", { class: "side", scope: "row" }, `L${layer}`));
      const line = componentsOf(layer, heads).map((name, index) => {
        const button = make("button", { type: "button", "aria-pressed": "false", "aria-label": `${NAMES[model]} ${name}`, tabIndex: -1 });
        button.dataset.component = name;
        button.dataset.model = model;
        cells.set(name, button);
        if (index === heads) row.append(make("td", { class: "gap" }));
        row.append(make("td", {}, button));
        return button;
      });
      rows.push(line);
      body.append(row);
    }
    rows[0][0].tabIndex = 0;
    const place = (button) => {
      const row = rows.findIndex((line) => line.includes(button));
      return [row, rows[row].indexOf(button)];
    };
    const table = make("table", { class: "bench-grid", "aria-label": `${NAMES[model]}: components that can be switched off` }, make("thead", {}, head), body);
    table.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (!moves[event.key] || !(event.target instanceof HTMLButtonElement)) return;
      event.preventDefault();
      const [row, column] = place(event.target);
      const next = rows[Math.min(rows.length - 1, Math.max(0, row + moves[event.key][0]))];
      const button = next[Math.min(next.length - 1, Math.max(0, column + moves[event.key][1]))];
      event.target.tabIndex = -1;
      button.tabIndex = 0;
      button.focus();
    });
    const about = (event) => event.target.dataset && event.target.dataset.component && handlers.look(model, event.target.dataset.component);
    table.addEventListener("mouseover", about);
    table.addEventListener("focusin", about);
    table.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) handlers.press(button.dataset.component);
    });
    return { node: make("div", {}, make("p", { class: "bench-grid-title" }, NAMES[model]), table), cells };
  };

  // effects: {component: effect}; off: the set of components that are switched off.
  const paint = (made, model, effects, most, off) => {
    for (const [name, button] of made.cells) {
      const effect = effects[name];
      button.setAttribute("aria-pressed", off.has(name) ? "true" : "false");
      if (effect === undefined) {
        button.style.backgroundColor = "";
        delete button.dataset.effect;
        button.setAttribute("aria-label", `${NAMES[model]} ${name}`);
      } else {
        button.style.backgroundColor = tint(-effect, most);
        button.setAttribute("aria-label", `${NAMES[model]} ${name}: ${signed(effect)} when off`);
        button.dataset.effect = effect.toFixed(6);
      }
    }
  };

  return { NAMES, visible, make, probabilities, margin, best, shown, signed, tint, predictions, words, componentsOf, grid, paint };
})();
