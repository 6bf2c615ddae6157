/** Everything before one is signed in: sign in, sign up, a link by mail, a forgotten password. */

import { isAuthApiError } from "@supabase/supabase-js";
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useEffect, useRef, useState } from "react";
import { Link, useLocation, useSearchParams } from "wouter";

import { type Config, ORIGIN, Refused, sentence } from "../api";
import { Icon } from "../icons";
import { Field } from "../parts/field";
import { LegalLinks } from "../parts/legal";
import { OfflineBar, Problem } from "../parts/notices";
import { ThemeButton } from "../parts/theme";
import { useTurnstile } from "../parts/turnstile";
import { supabase, useSigned } from "../session";
import { t } from "../strings";

type Mode = "in" | "up" | "link" | "reset";
const MODES: Record<string, Mode> = { "/sign-up": "up", "/link": "link", "/reset": "reset" };

const HOME = new URL(import.meta.env.BASE_URL, location.href).href.replace(/\/$/, "");

/** What supabase-js threw, as the rest of the app knows errors. */
export function refused(error: unknown): Refused {
  if (!isAuthApiError(error)) return new Refused(navigator.onLine ? t.trouble.unreachable : t.trouble.offline, 0);
  const known: Record<string, string> = { invalid_credentials: t.sign.wrong, email_not_confirmed: t.sign.notConfirmed };
  const wait = Number(/(\d+) s/.exec(error.message)?.[1]); // of too many tries: the client passes no headers on
  return new Refused(known[error.code ?? ""] ?? sentence(error.message), error.status, error.code, wait || null);
}

export function SignIn({ config }: { config: Config }) {
  const [place, go] = useLocation();
  const [params] = useSearchParams();
  const mode = MODES[place] ?? "in";
  const { ended } = useSigned();
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const [sent, setSent] = useState<"signup" | "link" | null>(null);
  const [linkFailed] = useState(() => (location.search + location.hash).includes("error_code="));
  const [elsewhere] = useState(() => params.has("code")); // a link of another browser: the right one would be signed in
  const local = new URL(config.supabase_url || ORIGIN).origin === ORIGIN;
  const check = useTurnstile(config.turnstile_site_key, mode === "up" ? "sign-up" : "sign-in");
  const title = { in: t.sign.inTitle, up: t.sign.upTitle, link: t.sign.linkTitle, reset: t.sign.resetTitle }[mode];
  const heading = useRef<HTMLHeadingElement>(null);

  useEffect(() => {
    document.title = `${title} · ${t.name}`;
    setError(null);
    setSent(null);
  }, [title]);
  useEffect(() => {
    if (linkFailed || elsewhere) history.replaceState(null, "", location.pathname);
  }, [linkFailed, elsewhere]);
  useEffect(() => {
    if (sent) heading.current?.focus();
  }, [sent]);

  async function submit(event: FormEvent) {
    event.preventDefault();
    if (!check.ready) return setError(new Refused(t.turnstile.wait, 403));
    setError(null);
    setBusy(true);
    const captchaToken = check.token;
    const options = { captchaToken, emailRedirectTo: HOME };
    const answer = await (mode === "up"
      ? supabase.auth.signUp({ email, password, options })
      : mode === "link"
        ? supabase.auth.signInWithOtp({ email, options })
        : mode === "reset"
          ? supabase.auth.resetPasswordForEmail(email, { captchaToken, redirectTo: HOME })
          : supabase.auth.signInWithPassword({ email, password, options }));
    check.spent();
    setBusy(false);
    if (answer.error) setError(refused(answer.error));
    else if (mode !== "in" && !(answer.data && "session" in answer.data && answer.data.session)) setSent(mode === "up" ? "signup" : "link");
    else if (place !== "/" && !place.startsWith("/admin")) go("/speak", { replace: true });
  }

  return (
    <div className="entrance">
      <header className="top">
        <p className="brand">
          <Icon name="fish" />
          {t.name}
        </p>
        <ThemeButton />
      </header>
      <main className="card" id="main">
        <OfflineBar />
        {sent ? (
          <Sent email={email} heading={heading} again={sent === "signup"} local={local} config={config} onBack={() => setSent(null)} />
        ) : (
          <>
            <h1>{title}</h1>
            {mode === "up" && <p className="lead">{t.sign.tagline}</p>}
            {mode === "link" && <p className="lead">{t.sign.linkHint}</p>}
            {mode === "reset" && <p className="lead">{t.sign.resetHint}</p>}
            {ended && mode === "in" && (
              <p className="notice" role="status">
                {t.sign.ended}
              </p>
            )}
            {params.get("gone") !== null && (
              <p className="notice" role="status">
                {t.sign.gone}
              </p>
            )}
            {linkFailed && (
              <p className="notice bad" role="alert">
                {t.sign.badLink}
              </p>
            )}
            {elsewhere && (
              <p className="notice" role="status">
                {t.sign.elsewhere}
              </p>
            )}
            <form onSubmit={submit} className="stack">
              <Field label={t.sign.email} type="email" name="email" autoComplete="username" required value={email} onChange={(e) => setEmail(e.target.value)} />
              {(mode === "in" || mode === "up") && (
                <Field
                  label={t.sign.password}
                  type="password"
                  name="password"
                  autoComplete={mode === "up" ? "new-password" : "current-password"}
                  minLength={mode === "up" ? 8 : undefined}
                  maxLength={200}
                  required
                  hint={mode === "up" ? t.sign.passwordHint : undefined}
                  aside={mode === "in" ? <Link href="/reset">{t.sign.toReset}</Link> : undefined}
                  value={password}
                  onChange={(e) => setPassword(e.target.value)}
                />
              )}
              {check.element}
              <Problem error={error} />
              <button className="primary wide" disabled={busy} aria-busy={busy}>
                {t.sign[mode]}
              </button>
            </form>
            {(mode === "in" || mode === "up") && <Others config={config} />}
            <p className="switch">
              {mode === "in" ? (
                <>
                  <Link href="/link">{t.sign.toLink}</Link>
                  <span>
                    {t.sign.new} <Link href="/sign-up">{t.sign.toUp}</Link>
                  </span>
                </>
              ) : (
                <span>
                  {t.sign.known} <Link href="/sign-in">{t.sign.toIn}</Link>
                </span>
              )}
            </p>
          </>
        )}
      </main>
      <LegalLinks config={config} />
    </div>
  );
}

function Sent(props: { email: string; heading: React.RefObject<HTMLHeadingElement | null>; again: boolean; local: boolean; config: Config; onBack: () => void }) {
  const check = useTurnstile(props.again ? props.config.turnstile_site_key : null, "sign-in");
  const [said, setSaid] = useState("");
  const [error, setError] = useState<unknown>(null);
  async function again() {
    if (!check.ready) return setError(new Refused(t.turnstile.wait, 403));
    setError(null);
    const options = { captchaToken: check.token, emailRedirectTo: HOME };
    const answer = await supabase.auth.resend({ type: "signup", email: props.email, options });
    check.spent();
    if (answer.error) setError(refused(answer.error));
    else setSaid(t.sign.resent);
  }
  return (
    <div className="stack">
      <Icon name="mail" />
      <h1 ref={props.heading} tabIndex={-1}>
        {t.sign.sentTitle}
      </h1>
      <p>{t.sign.sent(props.email)}</p>
      {props.local && <p className="hint">{t.sign.sentLocal}</p>}
      {check.element}
      <Problem error={error} />
      <p role="status">{said}</p>
      <div className="actions">
        <button type="button" onClick={props.onBack}>
          {t.sign.back}
        </button>
        {props.again && (
          <button type="button" className="quiet" onClick={again}>
            {t.sign.resend}
          </button>
        )}
      </div>
    </div>
  );
}

/** Buttons of the providers that this Supabase project has switched on. */
function Others({ config }: { config: Config }) {
  const { data = [] } = useQuery({
    queryKey: ["config", "providers"],
    staleTime: Infinity,
    queryFn: async () => {
      const address = `${config.supabase_url || ORIGIN}/auth/v1/settings`;
      const response = await fetch(address, { headers: { apikey: config.supabase_key || "embedded" } });
      if (!response.ok) return [];
      const { external } = (await response.json()) as { external: Record<string, boolean> };
      return Object.keys(external).filter((name) => external[name] && !["email", "phone", "anonymous_users"].includes(name));
    },
  });
  if (!data.length) return null;
  return (
    <>
      <p className="or">{t.sign.or}</p>
      <div className="stack">
        {data.map((provider) => (
          <button
            key={provider}
            type="button"
            className="wide"
            onClick={() => supabase.auth.signInWithOAuth({ provider: provider as "google", options: { redirectTo: HOME } })}
          >
            {t.sign.with(provider[0]!.toUpperCase() + provider.slice(1))}
          </button>
        ))}
      </div>
    </>
  );
}
