// Shows the rows of the report's bench: every single switch was worked out beforehand.
(() => {
  const B = TunescopeBench;
  const at = (id) => document.getElementById(id);
  const rows = JSON.parse(at("bench-rows").textContent);
  let row = null;
  let edit = "zero";
  let off = null;
  let made = {};
  let effects = {};

  const logitsOff = (model, name) => {
    const found = row.models[model].off[edit];
    const [, layer, head, part] = /^L(\d+)(?:H(\d+)|\.(attention|mlp))$/.exec(name);
    return head === undefined ? found[part][layer] : found.heads[layer][head];
  };

  const paint = () => {
    const models = Object.keys(row.models);
    const clean = Object.fromEntries(models.map((model) => [model, row.models[model].logits]));
    const follow = B.best(clean.tuned);
    const names = Array.from({ length: row.layers }, (_, layer) => B.componentsOf(layer, row.heads)).flat();
    let most = 0;
    for (const model of models) {
      const before = B.margin(clean[model], follow);
      effects[model] = Object.fromEntries(names.map((name) => [name, B.margin(logitsOff(model, name), follow) - before]));
      most = Math.max(most, ...names.filter((name) => name.includes("H")).map((name) => Math.abs(effects[model][name])));
    }
    for (const model of models) B.paint(made[model], model, effects[model], most, new Set(off ? [off] : []));
    const now = off ? Object.fromEntries(models.map((model) => [model, logitsOff(model, off)])) : clean;
    B.predictions(at("bench-prediction"), row.labels, models, now, clean, follow);
    at("bench-low").textContent = `off helps ${B.visible(row.labels[follow])} (+${most.toFixed(2)})`;
    at("bench-high").textContent = `off harms it (\u2212${most.toFixed(2)})`;
    look(null, off);
    const without = {};
    for (const model of models) {
      without[model] = row.models[model].words.map((logits) => B.margin(clean[model], follow) - B.margin(logits, follow));
    }
    B.words(at("bench-words"), row.text, row.words, models, without);
  };

  const look = (_model, name) => {
    const parts = Object.keys(row.models).map((model) => `${B.NAMES[model].toLowerCase()} ${name ? B.signed(effects[model][name]) : ""}`);
    at("bench-readout").textContent = name ? `${name} off: ${parts.join(", ")}.` : "Nothing is switched off.";
  };

  const put = (index) => {
    [row, off, effects] = [rows[index], null, {}];
    const models = Object.keys(row.models);
    const press = (name) => { off = off === name ? null : name; paint(); };
    made = Object.fromEntries(models.map((model) => [model, B.grid(model, row.layers, row.heads, { press, look })]));
    at("bench-grids").replaceChildren(...models.map((model) => made[model].node));
    const truth = row.label === null || row.label === undefined ? "" : ` Its label: ${B.visible(row.labels[row.label])}.`;
    at("bench-chosen").textContent = `Row ${B.visible(row.row_id)}: ${row.chosen}.${truth}`;
    paint();
  };

  for (const name of ["zero", "mean"]) {
    at(`bench-${name}`).addEventListener("click", () => {
      edit = name;
      for (const one of ["zero", "mean"]) at(`bench-${one}`).setAttribute("aria-pressed", String(one === name));
      paint();
    });
  }
  at("bench-arm")?.addEventListener("change", (event) => put(Number(event.target.value)));
  put(0);
})();
