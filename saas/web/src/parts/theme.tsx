import { useEffect, useState } from "react";

import { Icon } from "../icons";
import { t } from "../strings";

const system = matchMedia("(prefers-color-scheme: dark)");
const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

/** The button between light and dark. Choosing what the system has anyway follows the system again. */
export function ThemeButton() {
  const [on, setOn] = useState(dark);
  useEffect(() => {
    const show = () => setOn(dark());
    system.addEventListener("change", show);
    return () => system.removeEventListener("change", show);
  }, []);
  useEffect(() => {
    dispatchEvent(new Event("themechange"));
  }, [on]);
  function flip() {
    const { dataset } = document.documentElement;
    if (!on === system.matches) delete dataset.theme;
    else dataset.theme = on ? "light" : "dark";
    try {
      if (dataset.theme) localStorage.setItem("fishserve.theme", dataset.theme);
      else localStorage.removeItem("fishserve.theme");
    } catch {
      // Storage is switched off: the choice lasts as long as the page.
    }
    setOn(dark());
  }
  return (
    <button type="button" className="quiet square" aria-label={on ? t.light : t.dark} onClick={flip}>
      <Icon name={on ? "light" : "dark"} />
    </button>
  );
}
