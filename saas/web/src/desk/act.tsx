/** An act: asks what, why, and, where the password was given long ago, for that; nothing that was typed is lost. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { createContext, type FormEvent, type ReactNode, useContext, useState } from "react";

import { type Config, Refused } from "../api";
import { Dialog } from "../parts/dialog";
import { Field } from "../parts/field";
import { Problem } from "../parts/notices";
import { useTurnstile } from "../parts/turnstile";
import { refused } from "../pages/sign-in";
import { supabase, useSigned } from "../session";
import { t } from "../strings";
import { d } from "./strings";

interface Place {
  config: Config;
  /** Say what was done. */
  tell: (said: string) => void;
  /** Show a dialog, or none. */
  show: (dialog: ReactNode) => void;
}

/** What the desk gives its pages. */
export const AtDesk = createContext<Place>(null!);

/** A button that opens an act. Its dialog is the desk's, so that it stays as it was opened when what it is about changes, or is shown no more. */
export function Opens({ label, name, children }: { label: string; name?: string; children: (close: () => void) => ReactNode }) {
  const { show } = useContext(AtDesk);
  return (
    <button type="button" aria-label={name} onClick={() => show(children(() => show(null)))}>
      {label}
    </button>
  );
}

interface Props<Done> {
  title: string;
  hint: string;
  danger?: boolean;
  /** Further things to fill in. */
  children?: ReactNode;
  run: (reason: string) => Promise<Done>;
  said: (done: Done) => string;
  onClose: () => void;
}

export function Act<Done>({ title, hint, danger, children, run, said, onClose }: Props<Done>) {
  const { tell } = useContext(AtDesk);
  const queries = useQueryClient();
  const [reason, setReason] = useState("");
  const act = useMutation({
    mutationFn: () => run(reason.trim()),
    onSuccess(done) {
      onClose();
      tell(said(done));
    },
    onSettled: () => queries.invalidateQueries({ queryKey: ["desk"] }), // also when its answer was lost
  });
  const stale = act.error instanceof Refused && act.error.code === "sign_in_again" ? act.error : null;
  function submit(event: FormEvent) {
    event.preventDefault();
    act.mutate();
  }
  return (
    <Dialog title={title} onClose={onClose} alert>
      <form className="stack" onSubmit={submit}>
        <p>{hint}</p>
        {children}
        <Field label={d.act.reason} required maxLength={500} autoComplete="off" value={reason} onChange={(e) => setReason(e.target.value)} />
        {!stale && (
          <>
            <Problem error={spoken(act.error)} />
            <div className="actions end">
              <button type="button" onClick={onClose}>
                {d.act.keep}
              </button>
              <button className={danger ? "danger solid" : "primary"} disabled={act.isPending} aria-busy={act.isPending}>
                {title}
              </button>
            </div>
          </>
        )}
      </form>
      {stale && <SignInAgain why={stale} onSignedIn={() => act.mutate()} onClose={onClose} />}
    </Dialog>
  );
}

/** A customer who lacks credits is led to the shop; here it is the user who lacks them. */
const spoken = (error: unknown) => (error instanceof Refused && error.status === 402 ? new Refused(error.message, 409) : error);

function SignInAgain({ why, onSignedIn, onClose }: { why: Refused; onSignedIn: () => void; onClose: () => void }) {
  const { config } = useContext(AtDesk);
  const { session } = useSigned();
  const [password, setPassword] = useState("");
  const check = useTurnstile(config.turnstile_site_key, "sign-in");
  const email = session?.user.email ?? "";
  const signIn = useMutation({
    async mutationFn() {
      if (!check.ready) throw new Refused(t.turnstile.wait, 403);
      const { error } = await supabase.auth.signInWithPassword({ email, password, options: { captchaToken: check.token } });
      check.spent();
      if (error) throw refused(error);
    },
    onSuccess: onSignedIn,
  });
  return (
    <form
      className="stack again"
      onSubmit={(event) => {
        event.preventDefault();
        signIn.mutate();
      }}
    >
      <p className="notice" role="alert">
        {why.message}
      </p>
      <input type="email" autoComplete="username" value={email} readOnly hidden />
      <Field
        label={t.sign.password}
        type="password"
        autoComplete="current-password"
        required
        maxLength={200}
        autoFocus
        hint={d.act.noPassword}
        value={password}
        onChange={(e) => setPassword(e.target.value)}
      />
      {check.element}
      <Problem error={signIn.error} />
      <div className="actions end">
        <button type="button" onClick={onClose}>
          {d.act.keep}
        </button>
        <button className="primary" disabled={signIn.isPending || signIn.isSuccess} aria-busy={signIn.isPending}>
          {d.act.again}
        </button>
      </div>
    </form>
  );
}
