// Sets the theme before the first paint; dashboard.js wires the button. A classic script on purpose: modules come too late.
"use strict";
(() => {
  const KEY = "tutormax-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage may be forbidden
    }
  };
  const apply = () => {
    const chosen = stored();
    const isDark = chosen ? chosen === "dark" : dark.matches;
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    document.dispatchEvent(new CustomEvent("theme"));
  };
  dark.addEventListener("change", apply);
  window.toggleTheme = () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(KEY, next);
      apply();
    } catch {
      document.documentElement.dataset.theme = next;
      document.dispatchEvent(new CustomEvent("theme"));
    }
  };
  apply();
})();
