"use strict";
// Runs before the first paint. Without a choice of the user the system decides.
{
  let chosen = null;
  try {
    chosen = localStorage.getItem("microrisk-theme");
  } catch {
    // storage may be forbidden; then the choice lasts as long as the page
  }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
    window.dispatchEvent(new Event("microrisk-theme"));
  };
  dark.addEventListener("change", apply);
  window.microriskToggleTheme = () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("microrisk-theme", chosen);
    } catch {
      // as above
    }
    apply();
    return chosen;
  };
  apply();
}
