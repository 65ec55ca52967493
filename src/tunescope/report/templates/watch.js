"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const [choice, slider, place, play, canvas, said] = ["movie", "step", "place", "play", "grid", "cell"].map(at);
  let timer = null;
  let box = { left: 0, top: 8, cell: 24 };
  for (const [index, movie] of data.movies.entries()) {
    choice.append(new Option(movie.title, String(index)));
  }
  const movie = () => data.movies[Number(choice.value) || 0];

  function colour(value, one) {
    if (value === null) return "#8a929c";
    const share = Math.min(1, Math.max(0, (value - one.low) / (one.high - one.low)));
    const next = Math.max(1, one.colours.findIndex(([end]) => share <= end));
    const [[start, first], [end, second]] = [one.colours[next - 1], one.colours[next]];
    const part = (share - start) / (end - start);
    const mixed = [1, 3, 5].map((from) => {
      const [a, b] = [first, second].map((ink) => parseInt(ink.slice(from, from + 2), 16));
      return Math.round(a + (b - a) * part);
    });
    return `rgb(${mixed.join(",")})`;
  }

  function draw() {
    const one = movie();
    const index = Number(slider.value);
    const ink = getComputedStyle(document.body).color;
    const context = canvas.getContext("2d");
    const font = "12px system-ui, sans-serif";
    context.font = font;
    const widest = (names) => Math.max(...names.map((name) => context.measureText(name).width));
    const left = widest(one.rows) + 12;
    const cell = Math.max(14, Math.min(30, (Math.min(900, innerWidth - 40) - left) / one.columns.length));
    const [width, height] = [left + cell * one.columns.length + 4, 12 + cell * one.rows.length + widest(one.columns) + 12];
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    context.scale(ratio, ratio);
    context.font = font;
    box = { left, top: 8, cell };
    one.grids[index].forEach((line, y) => {
      context.fillStyle = ink;
      context.fillText(one.rows[y], 4, 8 + y * cell + cell / 2 + 4);
      line.forEach((value, x) => {
        context.fillStyle = colour(value, one);
        context.fillRect(left + x * cell, 8 + y * cell, cell - 1, cell - 1);
      });
    });
    context.fillStyle = ink;
    one.columns.forEach((name, x) => {
      context.save();
      context.translate(left + x * cell + cell / 2 - 4, 14 + cell * one.rows.length);
      context.rotate(Math.PI / 2);
      context.fillText(name, 0, 0);
      context.restore();
    });
    place.textContent = String(one.steps[index]);
    canvas.setAttribute("aria-label", `${one.title}, step ${one.steps[index]}`);
  }

  function begin() {
    slider.max = String(movie().steps.length - 1);
    slider.value = "0";
    draw();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  choice.addEventListener("change", begin);
  slider.addEventListener("input", draw);
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    play.textContent = "Stop";
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      if (next > Number(slider.max)) return stop();
      slider.value = String(next);
      draw();
    }, data.milliseconds);
    if (Number(slider.value) === Number(slider.max)) slider.value = "0";
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    const one = movie();
    const frame = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - frame.left - box.left) / box.cell);
    const y = Math.floor((event.clientY - frame.top - box.top) / box.cell);
    const value = (one.grids[Number(slider.value)][y] || [])[x];
    if (value === undefined) return;
    const number = value === null ? "not there" : value.toPrecision(3);
    said.textContent = `${one.rows[y]}, ${one.columns[x]}, step ${place.textContent}: ${number}`;
  });
  addEventListener("resize", draw);
  begin();
})();
