"use strict";
// Asks the server; answers come as JSON lines. A later question of the same kind and side ends the earlier one.
const TunescopeAsk = (() => {
  const home = document.getElementById("bench").dataset;
  const place = `${encodeURIComponent(home.run)}/${encodeURIComponent(home.arm)}/${home.seed}`;
  const tab = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`;
  const running = new Map();

  class Trouble extends Error {
    constructor(answer) {
      super([answer.error, answer.hint].filter(Boolean).join(" "));
      this.reopen = Boolean(answer.reopen);
    }
  }

  const lines = async (address, body, signal, receive) => {
    const answer = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Tab": tab },
      body: JSON.stringify(body),
      signal,
    });
    if (!answer.ok) {
      const said = await answer.text();
      let found = { error: said };
      try { found = JSON.parse(said); } catch { /* plain text says it as it is */ }
      throw new Trouble(found);
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return true;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) {
        const item = JSON.parse(part);
        if (item.error) throw new Trouble(item);
        if (item.dropped) return false;
        receive(item);
      }
    }
  };

  // Returns true when every answer came, false when a later question took its place.
  const ask = async (side, kind, question, receive) => {
    const key = `${side}/${kind}`;
    running.get(key)?.abort();
    const control = new AbortController();
    running.set(key, control);
    try {
      const body = { tab, side, kind, ...question };
      return await lines(`/ask/${place}`, body, control.signal, (item) => {
        if (running.get(key) === control) receive(item);
      });
    } catch (error) {
      if (control.signal.aborted) return false;
      throw error;
    }
  };

  const stop = (side, kind) => running.get(`${side}/${kind}`)?.abort();
  const open = (receive) => lines(`/open/${place}`, {}, undefined, receive);
  return { ask, stop, open };
})();
