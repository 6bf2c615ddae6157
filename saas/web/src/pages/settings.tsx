/** Name, password, webhooks, leaving for today, and leaving for good. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { save } from "shared/wav.js";
import { type FormEvent, useState } from "react";

import { api, ok, Refused, sentence } from "../api";
import { forgetDrafts } from "../draft";
import { Icon } from "../icons";
import { Sure } from "../parts/dialog";
import { Field } from "../parts/field";
import { Pending, Problem } from "../parts/notices";
import { Webhooks } from "../parts/webhooks";
import { recovered, signOut, supabase, useSigned } from "../session";
import { t } from "../strings";

export default function Settings() {
  const { data, error, refetch } = useQuery({ queryKey: ["me"], queryFn: () => ok(api.GET("/api/me")) });
  const { session, recovering } = useSigned();
  const email = session?.user.email ?? "";
  return (
    <>
      <h1>{t.settings.title}</h1>
      {recovering && (
        <p className="notice" role="status">
          {t.settings.choosePassword}
        </p>
      )}
      <div className="stack wide-gap">
        {!data ? <Pending error={error} refetch={refetch} rows={2} /> : <Profile name={data.display_name ?? ""} email={email} />}
        <Password email={email} />
        <section className="panel" aria-labelledby="session">
          <h2 id="session">{t.settings.session}</h2>
          <button
            type="button"
            onClick={() => {
              forgetDrafts();
              signOut();
            }}
          >
            <Icon name="out" />
            {t.settings.signOut}
          </button>
        </section>
        <Webhooks />
        <Data />
        <Danger email={email} />
      </div>
    </>
  );
}

function Profile({ name, email }: { name: string; email: string }) {
  const queries = useQueryClient();
  const [value, setValue] = useState(name);
  const save = useMutation({
    mutationFn: () => ok(api.PATCH("/api/me", { body: { display_name: value.trim() } })),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["me"] }),
  });
  return (
    <form
      className="panel stack"
      aria-labelledby="profile"
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate();
      }}
    >
      <h2 id="profile">{t.settings.profile}</h2>
      <Field label={t.settings.email} type="email" value={email} readOnly autoComplete="username" />
      <Field label={t.settings.displayName} required maxLength={80} autoComplete="name" value={value} onChange={(e) => (setValue(e.target.value), save.reset())} />
      <Problem error={save.error} />
      <div className="actions">
        <button className="primary" disabled={save.isPending || value.trim() === name}>
          {t.save}
        </button>
        <p role="status">{save.isSuccess ? t.settings.saved : ""}</p>
      </div>
    </form>
  );
}

function Password({ email }: { email: string }) {
  const [value, setValue] = useState("");
  const [said, setSaid] = useState("");
  const [error, setError] = useState<unknown>(null);
  async function submit(event: FormEvent) {
    event.preventDefault();
    setError(null);
    const answer = await supabase.auth.updateUser({ password: value });
    if (answer.error) return setError(new Refused(sentence(answer.error.message), answer.error.status ?? 0));
    setValue("");
    setSaid(t.settings.passwordSet);
    recovered();
  }
  return (
    <form className="panel stack" aria-labelledby="password" onSubmit={submit}>
      <h2 id="password">{t.settings.password}</h2>
      <input type="email" autoComplete="username" value={email} readOnly hidden />
      <Field
        label={t.settings.newPassword}
        type="password"
        autoComplete="new-password"
        required
        minLength={8}
        maxLength={200}
        hint={t.sign.passwordHint}
        value={value}
        onChange={(e) => (setValue(e.target.value), setSaid(""))}
      />
      <Problem error={error} />
      <div className="actions">
        <button disabled={!value}>{t.settings.setPassword}</button>
        <p role="status">{said}</p>
      </div>
    </form>
  );
}

function Data() {
  const download = useMutation({ mutationFn: async () => save(await ok(api.GET("/api/me/export", { parseAs: "blob" })), "my-data.zip") });
  return (
    <section className="panel stack" aria-labelledby="data">
      <h2 id="data">{t.settings.data}</h2>
      <p className="hint">{t.settings.dataHint}</p>
      <Problem error={download.error} />
      <button type="button" disabled={download.isPending} aria-busy={download.isPending} onClick={() => download.mutate()}>
        <Icon name="download" />
        {t.settings.download}
      </button>
    </section>
  );
}

function Danger({ email }: { email: string }) {
  const [asked, setAsked] = useState(false);
  const [typed, setTyped] = useState("");
  const close = useMutation({
    mutationFn: () => ok(api.DELETE("/api/me")),
    async onSuccess() {
      forgetDrafts();
      await signOut();
      history.replaceState(null, "", `${import.meta.env.BASE_URL}sign-in?gone`);
    },
  });
  return (
    <section className="panel danger-zone" aria-labelledby="danger">
      <h2 id="danger">{t.settings.danger}</h2>
      <p className="hint">{t.settings.dangerHint}</p>
      <button type="button" className="danger" onClick={() => setAsked(true)}>
        <Icon name="trash" />
        {t.settings.deleteAll}
      </button>
      {asked && (
        <Sure
          title={t.settings.sure}
          hint={t.settings.dangerHint}
          action={t.settings.forGood}
          busy={close.isPending || typed.trim().toLowerCase() !== email.toLowerCase()}
          onYes={() => close.mutate()}
          onNo={() => setAsked(false)}
        >
          <Field label={t.settings.typeEmail(email)} autoComplete="off" spellCheck={false} value={typed} onChange={(e) => setTyped(e.target.value)} />
          <Problem error={close.error} />
        </Sure>
      )}
    </section>
  );
}
