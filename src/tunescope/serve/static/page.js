"use strict";
// The page: opens the models, then holds what both texts share: the followed class, the edit, and what is off.
(() => {
  const B = TunescopeBench;
  const at = (id) => document.getElementById(id);
  const state = { off: new Set(), edit: "zero", wanted: "zero", follow: null };
  const sides = [];
  const EXAMPLE = "I feel so hopeless today, but my sister told me that he will be proud of us.";
  let about = null;
  let reopening = false;

  const page = {
    toggle(component) {
      if (!state.off.delete(component)) {
        state.off.add(component);
        const head = /^L(\d+)H(\d+)$/.exec(component);
        if (head) page.pick(head[1], head[2]);
      }
      switched();
    },
    pick(layer, head) {
      for (const side of sides) side.pick(layer, head); // both texts show the same head
    },
    beside(text) {
      second(true);
      sides[1].type(text);
      sides[1].node.scrollIntoView({ block: "nearest", behavior: "smooth" });
    },
    trouble(error, side) {
      if (error.reopen && !reopening) {
        reopening = true; // other models took their place meanwhile
        const again = async () => {
          await TunescopeAsk.open(() => {});
          if (state.edit === "mean") await means();
          for (const one of sides) one.put(one.text);
        };
        again().catch((other) => page.trouble(other, side)).finally(() => { reopening = false; });
        return;
      }
      at("trouble").textContent = B.visible(error.message || String(error));
      at("trouble").hidden = false;
    },
    calm() { at("trouble").hidden = true; },
  };

  const switched = () => {
    const chips = [...state.off].map((component) => {
      const chip = B.make("button", { type: "button", class: "chip", "aria-label": `Switch ${component} on again` }, component);
      chip.addEventListener("click", () => { state.off.delete(component); switched(); });
      return chip;
    });
    at("switched").replaceChildren(...(chips.length ? ["Off: ", ...chips] : ["Nothing is switched off."]));
    at("clear").hidden = chips.length < 2;
    for (const side of sides) {
      for (const model of about.models) B.paint(side.made[model], model, side.shown?.[model] || {}, side.most || 0, state.off);
      side.switch();
    }
  };

  const second = (wanted) => {
    if (wanted && sides.length === 1) {
      sides.push(new TunescopeSide.Side("b", about, state, page));
      at("sides").append(sides[1].node);
      [sides[1].layer.value, sides[1].head.value] = [sides[0].layer.value, sides[0].head.value];
      sides[1].type(sides[0].area.value);
    } else if (!wanted && sides.length === 2) {
      for (const kind of ["text", "switch", "words", "grid", "attention", "swaps"]) TunescopeAsk.stop("b", kind);
      sides.pop().node.remove();
    }
    at("sides").classList.toggle("two", sides.length === 2);
    at("beside").setAttribute("aria-pressed", String(sides.length === 2));
    at("beside").textContent = sides.length === 2 ? "Take it away" : "Put one beside";
  };

  const means = async () => {
    const note = (share) => { at("mean").textContent = share < 1 ? `its mean, ${Math.round(100 * share)} %` : "its mean"; };
    const done = await TunescopeAsk.ask("a", "means", {}, (answer) => note(answer.share)).catch((error) => page.trouble(error, sides[0]));
    note(1);
    return Boolean(done);
  };

  // An edit holds from when its numbers can be had; until then the one before does.
  const edit = async (wanted) => {
    state.wanted = wanted;
    if (wanted === "mean" && !(await means())) return;
    if (state.wanted !== wanted || state.edit === wanted) return;
    state.edit = wanted;
    for (const name of ["zero", "mean"]) at(name).setAttribute("aria-pressed", String(name === wanted));
    for (const side of sides) { side.switch(); side.grid(); }
  };

  const ready = (found) => {
    about = found;
    const head = { probe: "a logistic probe on its frozen features", tuned: "the tuned head on the base's trunk", none: "" }[about.base_head] ?? about.base_head;
    const base = about.models.includes("base") ? `The base answers under ${head}.` : "The base has no head, so it gives no prediction here; its attention is shown.";
    at("about").textContent = `${about.layers} layers of ${about.heads} heads (${about.family}), window ${about.window} tokens. ${base}`;
    at("follow").append(new Option("what the tuned model predicts", ""));
    about.labels.forEach((label, index) => at("follow").append(new Option(B.visible(label), String(index))));
    at("opening").hidden = true;
    at("open").hidden = false;
    sides.push(new TunescopeSide.Side("a", about, state, page));
    at("sides").append(sides[0].node);
    switched();
    let typed = null;
    try { typed = sessionStorage.getItem("tunescope-text"); } catch { /* a browser may forbid it */ }
    sides[0].area.addEventListener("input", () => { try { sessionStorage.setItem("tunescope-text", sides[0].area.value); } catch { /* as above */ } });
    sides[0].type(typed || EXAMPLE);
    sides[0].area.focus({ preventScroll: true });
  };

  at("follow").addEventListener("change", (event) => {
    state.follow = event.target.value === "" ? null : Number(event.target.value);
    for (const side of sides) side.refollow();
  });
  at("training").addEventListener("change", (event) => { location.href = event.target.value; });
  at("clear").addEventListener("click", () => { state.off.clear(); switched(); });
  at("beside").addEventListener("click", () => second(sides.length === 1));
  for (const name of ["zero", "mean"]) at(name).addEventListener("click", () => edit(name));
  TunescopeTheme.follow(() => sides.forEach((side) => side.repaintMaps?.()));

  TunescopeAsk.open((answer) => {
    if (answer.ready) return ready(answer.ready);
    at("step").textContent = `${answer.step} …`;
    at("share").value = answer.share ?? 0;
    return undefined;
  }).catch((error) => {
    at("opening").replaceChildren(B.make("p", { class: "alarm", role: "alert" }, B.visible(error.message)));
  });
})();
