/** A form for whoever hears speech or a voice that should not be. It needs no account. */

import { useMutation } from "@tanstack/react-query";
import { type FormEvent, useEffect, useRef, useState } from "react";
import { Link } from "wouter";

import { api, type Config, ok, Refused } from "../api";
import { Icon } from "../icons";
import { Field } from "../parts/field";
import { OfflineBar, Problem } from "../parts/notices";
import { ThemeButton } from "../parts/theme";
import { useTurnstile } from "../parts/turnstile";
import { t } from "../strings";

const KINDS = ["speech", "voice"] as const;

export default function Report({ config }: { config: Config }) {
  const check = useTurnstile(config.turnstile_site_key, "report");
  const [kind, setKind] = useState<(typeof KINDS)[number]>("speech");
  const [subject, setSubject] = useState("");
  const [details, setDetails] = useState("");
  const [contact, setContact] = useState("");
  const heading = useRef<HTMLHeadingElement>(null);
  const send = useMutation({
    async mutationFn() {
      if (!check.ready) throw new Refused(t.turnstile.wait, 403);
      const params = { header: check.token ? { "cf-turnstile-response": check.token } : {} };
      return ok(api.POST("/api/reports", { body: { kind, subject, details, contact: contact || null }, params }));
    },
    onSettled: () => check.spent(),
  });
  const sent = send.isSuccess;

  useEffect(() => {
    document.title = `${t.report.title} · ${t.name}`;
  }, []);
  useEffect(() => {
    if (sent) heading.current?.focus();
  }, [sent]);

  return (
    <div className="entrance">
      <header className="top">
        <Link href="/" className="brand">
          <Icon name="fish" />
          {t.name}
        </Link>
        <ThemeButton />
      </header>
      <main className="card" id="main">
        <OfflineBar />
        <h1 ref={heading} tabIndex={-1}>
          {sent ? t.report.thanks : t.report.title}
        </h1>
        {sent ? (
          <p className="lead">{t.report.number(send.data.id)}</p>
        ) : (
          <>
            <p className="lead">{t.report.about}</p>
            <form
              className="stack"
              onSubmit={(event: FormEvent) => {
                event.preventDefault();
                send.mutate();
              }}
            >
              <fieldset>
                <legend>{t.report.kind}</legend>
                {KINDS.map((name) => (
                  <label className="tick" key={name}>
                    <input type="radio" name="kind" checked={kind === name} onChange={() => setKind(name)} />
                    {t.report.kinds[name]}
                  </label>
                ))}
              </fieldset>
              <Field label={t.report.subject} hint={t.report.subjectHint} required maxLength={500} value={subject} onChange={(e) => setSubject(e.target.value)} />
              <div className="field">
                <label htmlFor="details">{t.report.details}</label>
                <textarea id="details" rows={5} dir="auto" required maxLength={5000} value={details} onChange={(e) => setDetails(e.target.value)} />
              </div>
              <Field
                label={t.report.contact}
                hint={t.report.contactHint}
                type="email"
                autoComplete="email"
                maxLength={320}
                value={contact}
                onChange={(e) => setContact(e.target.value)}
              />
              {check.element}
              <Problem error={send.error} />
              <button className="primary wide" disabled={send.isPending} aria-busy={send.isPending}>
                {t.report.send}
              </button>
            </form>
          </>
        )}
        <p className="switch">
          <Link href="/">{t.report.back}</Link>
        </p>
      </main>
    </div>
  );
}
