/** Light or dark: what the system has, until the visitor chooses. A `theme.js` before the first paint reads the choice. */

export const system = matchMedia("(prefers-color-scheme: dark)");

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

/** The other colours, from now on. Choosing what the system has follows the system again. */
export function flip() {
  const { dataset } = document.documentElement;
  const dark = !isDark();
  if (dark === system.matches) delete dataset.theme;
  else dataset.theme = dark ? "dark" : "light";
  try {
    if (dataset.theme) localStorage.setItem("fishserve.theme", dataset.theme);
    else localStorage.removeItem("fishserve.theme");
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
}
