/** What was typed and chosen, kept in this tab: over a reload, and over a session that ends. */

import { useEffect, useState } from "react";

const NAMES = ["text", "voice", "format"] as const;

export function useDraft(name: (typeof NAMES)[number], initial: string) {
  const key = `fishserve.draft.${name}`;
  const [value, set] = useState(() => {
    try {
      return sessionStorage.getItem(key) ?? initial;
    } catch {
      return initial; // storage is switched off: it lasts as long as the page
    }
  });
  useEffect(() => keep(key, value), [key, value]);
  return [value, set] as const;
}

function keep(key: string, value: string | null) {
  try {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, value);
  } catch {
    // See above.
  }
}

export const choose = (voice: string) => keep("fishserve.draft.voice", voice);

/** Somebody signs out by choice: the next one at this browser sees nothing of it. */
export function forgetDrafts() {
  for (const name of NAMES) keep(`fishserve.draft.${name}`, null);
}
