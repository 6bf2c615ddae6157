/** What is remembered between visits. Works, forgetting, where storage is switched off. */

import { flip, isDark, system } from "./shared/theme.js";

export function recall(name) {
  try {
    return localStorage.getItem(`fishserve.${name}`);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(`fishserve.${name}`);
    else localStorage.setItem(`fishserve.${name}`, value);
  } catch {
    // Nothing to do: the page works without.
  }
}

/** Restore every field that has `data-keep`, and remember it from now on. */
export function keepFields() {
  for (const field of document.querySelectorAll("[data-keep]")) {
    const value = recall(field.id);
    if (value !== null) field.value = value;
    for (const event of ["input", "change"]) field.addEventListener(event, () => remember(field.id, field.value));
  }
}

/** The button between light and dark. */
export function themeButton(button) {
  const show = () => {
    button.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
    button.querySelector("use").setAttribute("href", `page/icons.svg#${isDark() ? "light" : "dark"}`);
    dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    flip();
    show();
  });
  system.addEventListener("change", show);
  show();
}
