import { useEffect, useState } from "react";
import { flip, isDark, system } from "shared/theme.js";

import { Icon } from "../icons";
import { t } from "../strings";

/** The button between light and dark. */
export function ThemeButton() {
  const [on, setOn] = useState(isDark);
  useEffect(() => {
    const show = () => setOn(isDark());
    system.addEventListener("change", show);
    return () => system.removeEventListener("change", show);
  }, []);
  useEffect(() => {
    dispatchEvent(new Event("themechange"));
  }, [on]);
  return (
    <button
      type="button"
      className="quiet square"
      aria-label={on ? t.light : t.dark}
      onClick={() => {
        flip();
        setOn(isDark());
      }}
    >
      <Icon name={on ? "light" : "dark"} />
    </button>
  );
}
