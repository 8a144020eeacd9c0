// Says whether there is a script and a frame, and follows Airflow's dark or light mode: the choice is in localStorage ("theme"), and, resolved, a class of its page's root.
(function () {
  "use strict";
  var root = document.documentElement;
  var system = window.matchMedia("(prefers-color-scheme: dark)");
  var outer = null;
  try {
    // Another origin throws.
    outer = window.parent !== window ? window.parent.document.documentElement : null;
  } catch (error) {
    outer = null;
  }

  function chosen() {
    if (outer && outer.classList.contains("dark")) return "dark";
    if (outer && outer.classList.contains("light")) return "light";
    var kept = null;
    try {
      kept = window.localStorage.getItem("theme");
    } catch (error) {
      kept = null;
    }
    return kept === "dark" || kept === "light" ? kept : system.matches ? "dark" : "light";
  }

  function apply() {
    root.setAttribute("data-theme", chosen());
  }

  apply();
  if (window.parent !== window) root.setAttribute("data-framed", "");
  window.addEventListener("storage", apply);
  system.addEventListener("change", apply);
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
})();
