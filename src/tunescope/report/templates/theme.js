"use strict";
// Light or dark: the system's, or what was chosen with the button #theme. Reports and served pages share it.
const TunescopeTheme = (() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const followers = [];
  const remembered = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("tunescope-theme", value);
      return localStorage.getItem("tunescope-theme");
    } catch {
      return null; // storage may be refused to files
    }
  };
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
  const now = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const name = () => {
    const button = document.getElementById("theme");
    if (button) button.textContent = now() === "dark" ? "Light" : "Dark";
  };
  const set = (value) => {
    if (value) root.dataset.theme = value;
    else delete root.dataset.theme;
    name();
    for (const follower of followers) follower();
  };
  name();
  document.addEventListener("DOMContentLoaded", name); // in a page's head the button is not there yet
  document.addEventListener("click", (event) => {
    if (event.target.id !== "theme") return;
    const other = now() === "dark" ? "light" : "dark";
    remembered(other);
    set(other);
  });
  system.addEventListener("change", () => set(root.dataset.theme));
  return { now, set, chosen: () => root.dataset.theme, follow: (follower) => followers.push(follower) };
})();
