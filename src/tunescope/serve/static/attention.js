"use strict";
// One head's attention as a map: the token that looks stands left, the token looked at stands above.
const TunescopeAttention = (() => {
  const { make, visible, NAMES } = TunescopeBench;
  const MOST_NAMED = 48;

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rgb = (colour) => {
    const hex = colour.replace("#", "");
    return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
  };

  const draw = (canvas, pieces, pattern, lit) => {
    const count = pieces.length;
    const named = count <= MOST_NAMED;
    const size = 520;
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const context = canvas.getContext("2d");
    const edge = named ? 92 : 4;
    const cell = (size - edge) / count;
    canvas.width = size * scale;
    canvas.height = size * scale;
    context.scale(scale, scale);
    context.clearRect(0, 0, size, size);
    const [from, to] = [rgb(ink("--wash")), rgb(ink("--for"))];
    for (let row = 0; row < count; row += 1) {
      for (let column = 0; column < count; column += 1) {
        const share = Math.min(1, pattern[row][column]) ** 0.6;
        context.fillStyle = `rgb(${from.map((value, at) => Math.round(value + (to[at] - value) * share)).join(",")})`;
        const gap = cell > 6 ? 1 : 0;
        context.fillRect(edge + column * cell, edge + row * cell, cell - gap, cell - gap);
      }
    }
    if (named) {
      const font = Math.min(12.5, Math.max(8, cell * 0.78));
      context.font = `${font}px ${ink("--sans")}`;
      context.textBaseline = "middle";
      pieces.forEach((piece, index) => {
        const word = visible(piece).trim() || "\u00b7";
        const short = word.length > 12 ? `${word.slice(0, 11)}\u2026` : word;
        context.fillStyle = ink(lit && lit[0] === index ? "--ink" : "--quiet");
        context.textAlign = "right";
        context.fillText(short, edge - 6, edge + (index + 0.5) * cell);
        context.save();
        context.fillStyle = ink(lit && lit[1] === index ? "--ink" : "--quiet");
        context.translate(edge + (index + 0.5) * cell, edge - 6);
        context.rotate(-Math.PI / 2);
        context.textAlign = "left";
        context.fillText(short, 0, 0);
        context.restore();
      });
    }
    if (lit) {
      context.strokeStyle = ink("--ink");
      context.lineWidth = 1.5;
      context.strokeRect(edge + lit[1] * cell, edge + lit[0] * cell, cell, cell);
    }
    return { edge, cell, size };
  };

  const strongest = (pieces, pattern) => {
    const columns = pieces.map((_, column) => pattern.reduce((sum, row) => sum + row[column], 0) / pieces.length);
    const index = TunescopeBench.best(columns);
    return `on average most to \u201c${visible(pieces[index]).trim()}\u201d (${columns[index].toFixed(2)})`;
  };

  // patterns: {model: [[...]]}; both maps light the same cell.
  const show = (node, readout, pieces, patterns, name) => {
    const maps = Object.keys(patterns).map((model) => {
      const label = `${NAMES[model]}, ${name}: ${strongest(pieces, patterns[model])}`;
      const canvas = make("canvas", { role: "img", "aria-label": label, tabIndex: 0 });
      canvas.dataset.model = model;
      return { model, canvas, figure: make("figure", {}, make("figcaption", {}, make("bdi", {}, label)), canvas) };
    });
    let lit = null;
    let frame = {};
    const paint = () => {
      for (const one of maps) frame = draw(one.canvas, pieces, patterns[one.model], lit);
      readout.textContent = lit
        ? `\u201c${visible(pieces[lit[0]]).trim()}\u201d gives \u201c${visible(pieces[lit[1]]).trim()}\u201d: ` +
          maps.map((one) => `${NAMES[one.model].toLowerCase()} ${patterns[one.model][lit[0]][lit[1]].toFixed(3)}`).join(", ")
        : "Point at a cell: the token on the left looks at the token above.";
    };
    const inside = (value) => Math.max(0, Math.min(pieces.length - 1, value));
    for (const one of maps) {
      one.canvas.addEventListener("pointermove", (event) => {
        const box = one.canvas.getBoundingClientRect();
        const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((value) => (value / box.width) * frame.size);
        const [row, column] = [y, x].map((value) => Math.floor((value - frame.edge) / frame.cell));
        const next = row >= 0 && column >= 0 && row < pieces.length && column < pieces.length ? [row, column] : null;
        if (String(next) !== String(lit)) { lit = next; paint(); }
      });
      one.canvas.addEventListener("pointerleave", () => { lit = null; paint(); });
      one.canvas.addEventListener("keydown", (event) => {
        const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
        if (!moves[event.key]) return;
        event.preventDefault();
        const [row, column] = lit || [0, 0];
        lit = lit ? [inside(row + moves[event.key][0]), inside(column + moves[event.key][1])] : [0, 0];
        paint();
      });
    }
    node.replaceChildren(...maps.map((one) => one.figure));
    paint();
    return paint;
  };

  return { show };
})();
