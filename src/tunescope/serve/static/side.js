"use strict";
// One text on the bench: what is asked about it, and how the answers are shown.
const TunescopeSide = (() => {
  const B = TunescopeBench;
  const WAIT = 140; // milliseconds of quiet before a typed text is asked about

  class Side {
    constructor(name, about, state, page) {
      Object.assign(this, { name, about, state, page });
      const node = document.getElementById("side").content.firstElementChild.cloneNode(true);
      this.node = node;
      const part = (selector) => node.querySelector(selector);
      node.setAttribute("aria-label", name === "a" ? "First text" : "Second text");
      [this.area, this.counted, this.prediction, this.deciding] = ["textarea", ".counted", ".prediction", ".deciding"].map(part);
      [this.grids, this.readout, this.maps, this.attending] = [".bench-grids", ".bench-readout", ".maps", ".attending"].map(part);
      [this.swaps, this.layer, this.head] = [".swaps", ".pick-layer", ".pick-head"].map(part);
      part(".typed-label").textContent = name === "a" ? "Text" : "Second text";
      this.forget("");
      this.made = Object.fromEntries(
        about.models.map((model) => [
          model,
          B.grid(model, about.layers, about.heads, {
            press: (component) => page.toggle(component),
            look: (_model, component) => this.look(component),
          }),
        ]),
      );
      this.grids.append(...about.models.map((model) => this.made[model].node));
      for (const [list, count] of [[this.layer, about.layers], [this.head, about.heads]]) {
        for (let index = 0; index < count; index += 1) list.append(new Option(String(index), String(index)));
        list.addEventListener("change", () => page.pick(this.layer.value, this.head.value));
      }
      this.layer.value = String(about.layers - 1);
      this.area.addEventListener("input", () => {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.put(this.area.value), WAIT);
      });
    }

    forget(text) {
      Object.assign(this, { text, clean: null, now: null, spans: [], without: {}, effects: {} });
    }

    ask(kind, question, receive) {
      return TunescopeAsk.ask(this.name, kind, question, receive).catch((error) => {
        this.page.trouble(error, this);
        return false;
      });
    }

    type(text) {
      this.area.value = text;
      this.put(text);
    }

    async put(text) {
      for (const kind of ["switch", "words", "grid", "attention", "swaps"]) TunescopeAsk.stop(this.name, kind);
      this.forget(text);
      this.node.classList.toggle("empty", !text.trim());
      if (!text.trim()) {
        TunescopeAsk.stop(this.name, "text");
        this.counted.textContent = "Type a text of at least one word.";
        for (const node of [this.prediction, this.deciding, this.maps, this.swaps]) node.replaceChildren();
        this.paint();
        return;
      }
      for (const node of [this.prediction, this.deciding, this.maps, this.swaps]) node.classList.add("waiting");
      await this.ask("text", { text }, (answer) => {
        if (text !== this.text) return;
        this.page.calm();
        this.node.dataset.text = text; // the text that the numbers below belong to
        Object.assign(this, { clean: answer.logits, now: answer.logits, spans: answer.words });
        const cut = answer.cut ? ` The text is longer than the window of ${this.about.window}: ${answer.cut} tokens were cut and are not read.` : "";
        this.counted.textContent = `${answer.tokens} tokens.${cut}`;
        this.predict();
        this.words();
        this.switch();
        this.grid();
        this.attention();
        this.swap();
      });
    }

    follow() {
      return this.state.follow ?? B.best(this.clean.tuned);
    }

    predict() {
      if (!this.clean) return;
      this.prediction.classList.remove("waiting");
      B.predictions(this.prediction, this.about.labels, this.about.models, this.now, this.clean, this.follow());
    }

    async switch() {
      if (!this.clean) return;
      const [text, off] = [this.text, [...this.state.off]];
      if (!off.length) {
        TunescopeAsk.stop(this.name, "switch");
        this.now = this.clean;
        this.predict();
        return;
      }
      await this.ask("switch", { text, off, edit: this.state.edit }, (answer) => {
        if (text !== this.text || off.join() !== [...this.state.off].join()) return;
        this.now = answer.logits;
        this.predict();
      });
    }

    async words() {
      const text = this.text;
      this.without = Object.fromEntries(this.about.models.map((model) => [model, []]));
      await this.ask("words", { text }, (part) => {
        part.logits.forEach((logits, index) => { this.without[part.model][part.first + index] = logits; });
        this.showWords();
      });
      if (text === this.text) this.showWords();
    }

    showWords() {
      if (!this.clean) return;
      this.deciding.classList.remove("waiting");
      const follow = this.follow();
      const effects = {};
      for (const model of this.about.models) {
        const whole = B.margin(this.clean[model], follow);
        effects[model] = Array.from(this.without[model] || [], (logits) => (logits ? whole - B.margin(logits, follow) : undefined));
      }
      B.words(this.deciding, this.text, this.spans, this.about.models, effects);
    }

    async grid() {
      if (!this.clean) return;
      const text = this.text;
      this.effects = Object.fromEntries(this.about.models.map((model) => [model, {}]));
      this.paint();
      await this.ask("grid", { text, edit: this.state.edit }, (part) => {
        const names = B.componentsOf(part.layer, this.about.heads);
        [...part.heads, part.attention, part.mlp].forEach((logits, index) => { this.effects[part.model][names[index]] = logits; });
        this.paint();
      });
    }

    paint() {
      const found = {};
      let most = 0;
      for (const model of this.about.models) {
        found[model] = {};
        for (const [name, logits] of Object.entries(this.effects[model] || {})) {
          found[model][name] = B.margin(logits, this.follow()) - B.margin(this.clean[model], this.follow());
        }
        most = Math.max(most, ...Object.entries(found[model]).filter(([name]) => name.includes("H")).map(([, value]) => Math.abs(value)), 0);
      }
      this.shown = found;
      this.most = most;
      for (const model of this.about.models) B.paint(this.made[model], model, found[model], most, this.state.off);
      const [low, high] = [".scale-low", ".scale-high"].map((selector) => this.node.querySelector(selector));
      const label = this.clean ? B.visible(this.about.labels[this.follow()]) : "the class";
      low.textContent = `off helps ${label}${most ? ` (margin +${most.toFixed(2)})` : ""}`;
      high.textContent = `off harms it${most ? ` (\u2212${most.toFixed(2)})` : ""}`;
      this.look(null);
    }

    look(component) {
      const done = this.about.models.some((model) => Object.keys(this.shown?.[model] || {}).length);
      if (!component) {
        this.readout.textContent = done ? "Margin: the log odds of the followed class against all others." : "";
        return;
      }
      const parts = this.about.models
        .filter((model) => this.shown[model][component] !== undefined)
        .map((model) => `${B.NAMES[model].toLowerCase()} ${B.signed(this.shown[model][component])}`);
      this.readout.textContent = `${component} off by itself: ${parts.join(", ") || "not worked out yet"}.`;
    }

    pick(layer, head) {
      [this.layer.value, this.head.value] = [layer, head];
      this.attention();
    }

    async attention() {
      if (!this.clean) return;
      const [text, layer, head] = [this.text, Number(this.layer.value), Number(this.head.value)];
      await this.ask("attention", { text, layer, head }, (answer) => {
        this.maps.classList.remove("waiting");
        this.repaintMaps = TunescopeAttention.show(this.maps, this.attending, answer.pieces, answer.patterns, `L${layer}H${head}`);
      });
    }

    async swap() {
      const text = this.text;
      const found = [];
      await this.ask("swaps", { text }, (answer) => found.push(answer));
      if (text !== this.text) return;
      this.swaps.classList.remove("waiting");
      this.swapped = found;
      this.showSwaps();
    }

    showSwaps() {
      if (!this.swapped || !this.clean) return;
      const nothing = B.make("p", { class: "note" }, "No word of this text stands in the lexicons of gender, names, race and synonyms. Any other word can be swapped by hand in a second text.");
      this.swaps.replaceChildren(...(this.swapped.length ? this.swapped.map((one) => this.oneSwap(one)) : [nothing]));
    }

    oneSwap(one) {
      const row = B.make("div", { class: "swap" }, B.make("span", { class: "which" }, one.lexicon));
      if (one.reason) {
        row.append(B.make("p", { class: "quiet" }, `\u201c${B.visible(one.term)}\u201d cannot be swapped: ${one.reason.replaceAll("_", " ")} is not clear.`));
        return row;
      }
      const line = B.make("p");
      let last = 0;
      for (const change of one.changes) {
        line.append(B.visible(one.text.slice(last, change.start)), B.make("b", {}, B.visible(one.text.slice(change.start, change.end))));
        last = change.end;
      }
      line.append(B.visible(one.text.slice(last)));
      const button = B.make("button", { type: "button", class: "bench-button" }, "Put beside");
      button.addEventListener("click", () => this.page.beside(one.text));
      const follow = this.follow();
      const moved = this.about.models.map((model) => {
        const [before, after] = [this.clean[model], one.logits[model]].map((logits) => B.probabilities(logits));
        return `${B.NAMES[model].toLowerCase()} ${B.shown(before[follow])} \u2192 ${B.shown(after[follow])}`;
      });
      row.append(line, button, B.make("span", { class: "moved" }, `${B.visible(this.about.labels[follow])}: ${moved.join("; ")}`));
      return row;
    }

    refollow() {
      this.predict();
      this.showWords();
      this.paint();
      this.showSwaps();
    }
  }

  return { Side };
})();
