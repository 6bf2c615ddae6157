/** Who is signed in. Supabase's client keeps and renews the session, at Supabase or at this server's own sign-in. */

import { createClient, type Session, type SupabaseClient } from "@supabase/supabase-js";
import { useSyncExternalStore } from "react";

/** `undefined` while it is not known yet; `ended`: there was a session, and it did not end by the user's wish. */
export interface Signed {
  session: Session | null | undefined;
  ended: boolean;
  recovering: boolean;
}

const KEPT = "fishserve.session";
let state: Signed = { session: undefined, ended: false, recovering: false };
let leaving = false;
const listeners = new Set<() => void>();

export let supabase: SupabaseClient;

function become(next: Partial<Signed>) {
  state = { ...state, ...next };
  for (const listener of listeners) listener();
}

/**
 * Begin to follow the session. A link leads back with a code, which is worth a session only in the browser that asked for the link (PKCE):
 * nobody is signed in by a stranger's link, to a stranger's account.
 */
export function watch(url: string, key: string) {
  const asked = new URLSearchParams(location.search);
  let recovery = asked.has("code") && asked.get("type") === "recovery";
  supabase = createClient(url, key, { auth: { flowType: "pkce", storageKey: KEPT } });
  supabase.auth.onAuthStateChange((event, session) => {
    if (event === "SIGNED_OUT") become({ session: null, ended: !leaving && Boolean(state.session), recovering: false });
    else {
      const recovering = event === "PASSWORD_RECOVERY" || (event === "SIGNED_IN" && recovery);
      if (event === "SIGNED_IN") recovery = false;
      become({ session, ended: session ? false : state.ended, recovering: state.recovering || recovering });
    }
  });
}

export function useSigned(): Signed {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    () => state,
  );
}

export const recovered = () => become({ recovering: false });

/** A token that is good now, renewed where it has to be; null when nobody is signed in. `renew`: the server refused the present one. */
export async function token(renew = false): Promise<string | null> {
  const { data } = renew ? await supabase.auth.refreshSession() : await supabase.auth.getSession();
  return data.session?.access_token ?? null;
}

/** End the session in this browser, also when nobody can be told. */
export async function signOut(): Promise<void> {
  leaving = true;
  const { error } = await supabase.auth.signOut({ scope: "local" });
  leaving = false;
  if (!error) return;
  localStorage.removeItem(KEPT);
  location.reload();
}

/** The session is no longer believed by the server. */
export async function lost(): Promise<void> {
  if (state.session) await supabase.auth.signOut({ scope: "local" });
}
