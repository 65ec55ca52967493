"use strict";
// Draws the maps of base and tuned side by side, layer by layer; foreign text is only ever set as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const sides = ["base", "tuned"];
  const state = { arm: 0, method: "", axes: 2, colour: 0, from: 0, to: 0, mix: 1, row: -1, turn: 0.5, tilt: 0.35 };
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Coordinates are whole numbers of 16 bits, least byte first, in units of the map's greatest distance.
  const decoded = new Map();
  const decode = (text) => {
    if (!decoded.has(text)) {
      const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
      const view = new DataView(bytes.buffer);
      decoded.set(text, Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / 32767));
    }
    return decoded.get(text);
  };

  const arm = () => data.arms[state.arm];
  const map = (layer) => arm().layers[layer].maps[`${state.method}-${state.axes}`];
  const colours = (side) => arm().columns[state.colour].values[side] ?? arm().columns[state.colour].values.both;

  const options = (select, names, chosen) => {
    select.replaceChildren(...names.map((name, index) => {
      const option = document.createElement("option");
      option.value = String(index);
      option.textContent = name;
      option.selected = index === chosen;
      return option;
    }));
  };

  const shade = (column, value) => {
    if (value === null || value === undefined) return data.missing;
    if (column.kind === "category") return data.palette[value] ?? data.missing;
    const share = (value - column.low) / (column.high - column.low || 1);
    return data.ramp[Math.min(data.ramp.length - 1, Math.max(0, Math.floor(share * data.ramp.length)))];
  };

  // Where each row stands on a canvas: between two layers while the picture moves, turned where it has three axes.
  const places = (side, width, height) => {
    const [a, b] = [map(state.from), map(state.to)].map((one) => one && decode(one[side]));
    if (!a || !b) return null;
    const [axes, count] = [state.axes, arm().ids.length];
    const [c, s, d, t] = [Math.cos(state.turn), Math.sin(state.turn), Math.cos(state.tilt), Math.sin(state.tilt)];
    const size = 0.47 * Math.min(width, height);
    const spots = new Float32Array(3 * count);
    for (let i = 0; i < count; i += 1) {
      const at = (k) => (1 - state.mix) * a[axes * i + k] + state.mix * b[axes * i + k];
      let [x, y, z] = [at(0), at(1), axes === 3 ? at(2) : 0];
      if (axes === 3) {
        [x, z] = [c * x + s * z, c * z - s * x];
        [y, z] = [d * y - t * z, d * z + t * y];
      }
      spots.set([width / 2 + size * x, height / 2 - size * y, z], 3 * i);
    }
    return spots;
  };

  const drawn = {};
  const draw = () => {
    const column = arm().columns[state.colour];
    for (const side of sides) {
      const canvas = byId(side);
      const scale = window.devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth, canvas.clientHeight];
      [canvas.width, canvas.height] = [width * scale, height * scale];
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      const spots = places(side, width, height);
      drawn[side] = spots;
      if (!spots) {
        pen.fillStyle = ink("--quiet");
        pen.fillText("No map of this layer: too few different states.", 14, 24);
        continue;
      }
      const values = colours(side);
      const order = Array.from({ length: spots.length / 3 }, (_, i) => i);
      if (state.axes === 3) order.sort((i, j) => spots[3 * i + 2] - spots[3 * j + 2]);
      for (const i of order) {
        pen.globalAlpha = state.axes === 3 ? 0.55 + 0.3 * spots[3 * i + 2] : 0.75;
        pen.fillStyle = shade(column, values[i]);
        const size = state.axes === 3 ? 2.7 + spots[3 * i + 2] : 2.7;
        pen.beginPath();
        pen.arc(spots[3 * i], spots[3 * i + 1], Math.max(1, size), 0, 7);
        pen.fill();
      }
      if (state.row >= 0) {
        pen.globalAlpha = 1;
        pen.strokeStyle = ink("--ink");
        pen.lineWidth = 2;
        pen.beginPath();
        pen.arc(spots[3 * state.row], spots[3 * state.row + 1], 7, 0, 7);
        pen.stroke();
      }
    }
  };

  const said = (column, value) => {
    if (value === null || value === undefined) return "–";
    return column.kind === "category" ? column.names[value] : String(value);
  };

  const describe = () => {
    const layer = arm().layers[state.to];
    byId("place").textContent = layer.name;
    for (const side of sides) byId(`trust-${side}`).textContent = layer.trust[`${state.method}-${state.axes}`]?.[side] ?? "";
    if (state.row < 0) return;
    const parts = arm().columns.map((column) => {
      if (column.values.both) return `${column.name}: ${said(column, column.values.both[state.row])}`;
      return `${column.name}: base ${said(column, column.values.base[state.row])}, tuned ${said(column, column.values.tuned[state.row])}`;
    });
    byId("row").textContent = `${arm().ids[state.row]} · ${parts.join(" · ")} · ${arm().texts[state.row]}`;
  };

  const legend = () => {
    const column = arm().columns[state.colour];
    const entry = (name, colour) => {
      const item = document.createElement("li");
      const dot = document.createElement("i");
      dot.style.background = colour;
      item.append(dot, document.createTextNode(name));
      return item;
    };
    const named = column.kind === "category"
      ? column.names.map((name, index) => entry(name, shade(column, index)))
      : [entry(String(column.low), data.ramp[0]), entry(String(column.high), data.ramp[data.ramp.length - 1])];
    byId("legend").replaceChildren(...named);
  };

  const show = () => { legend(); describe(); draw(); };

  const go = (target) => {
    if (target === state.to) return;
    Object.assign(state, { from: state.to, to: target, mix: 0 });
    byId("layer").value = String(target);
    describe();
    const start = performance.now();
    const step = (now) => {
      const share = Math.min(1, (now - start) / 700);
      state.mix = share * share * (3 - 2 * share);
      draw();
      if (share < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  };

  const setArm = (index) => {
    Object.assign(state, { arm: index, row: -1, from: 0, to: 0, mix: 1, colour: 0 });
    const maps = [...new Set(arm().layers.flatMap((layer) => Object.keys(layer.maps)))];
    const methods = [...new Set(maps.map((name) => name.split("-")[0]))];
    const axes = [...new Set(maps.map((name) => Number(name.split("-")[1])))].sort();
    [state.method, state.axes] = [methods[0], axes[0]];
    options(byId("method"), methods.map((name) => data.methods[name] ?? name), 0);
    options(byId("axes"), axes.map(String), 0);
    options(byId("colour"), arm().columns.map((column) => column.name), 0);
    byId("method").onchange = (event) => { state.method = methods[Number(event.target.value)]; show(); };
    byId("axes").onchange = (event) => { state.axes = axes[Number(event.target.value)]; show(); };
    byId("layer").max = String(arm().layers.length - 1);
    byId("layer").value = "0";
    show();
  };

  for (const side of sides) {
    const canvas = byId(side);
    let held = null;
    canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointerup", () => { held = null; });
    canvas.addEventListener("pointermove", (event) => {
      if (held && state.axes === 3) {
        state.turn += (event.clientX - held[0]) / 120;
        state.tilt = Math.max(-1.5, Math.min(1.5, state.tilt + (event.clientY - held[1]) / 120));
        held = [event.clientX, event.clientY];
        draw();
        return;
      }
      const spots = drawn[side];
      if (!spots) return;
      let [best, near] = [-1, 144];
      for (let i = 0; i < spots.length / 3; i += 1) {
        const gap = (spots[3 * i] - event.offsetX) ** 2 + (spots[3 * i + 1] - event.offsetY) ** 2;
        if (gap < near) [best, near] = [i, gap];
      }
      if (best >= 0 && best !== state.row) { state.row = best; describe(); draw(); }
    });
  }

  let timer = null;
  byId("play").addEventListener("click", () => {
    const stop = () => { clearInterval(timer); timer = null; byId("play").textContent = "Play"; };
    if (timer) { stop(); return; }
    byId("play").textContent = "Stop";
    const next = () => go((state.to + 1) % arm().layers.length);
    next();
    timer = setInterval(next, 1500);
  });
  byId("layer").addEventListener("input", (event) => go(Number(event.target.value)));
  byId("colour").addEventListener("change", (event) => { state.colour = Number(event.target.value); show(); });
  byId("arm").addEventListener("change", (event) => setArm(Number(event.target.value)));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  options(byId("arm"), data.arms.map((one) => one.name), 0);
  setArm(0);
})();
