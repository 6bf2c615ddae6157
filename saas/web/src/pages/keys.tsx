/** Keys for programs: made and shown once, listed, revoked. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";

import { api, type Config, type Key, ok, Refused } from "../api";
import { moment } from "../format";
import { Sure } from "../parts/dialog";
import { Field } from "../parts/field";
import { Empty, Pending, Problem } from "../parts/notices";
import { ShownOnce } from "../parts/shown-once";
import { useTurnstile } from "../parts/turnstile";
import { t } from "../strings";

const SCOPES = ["speak", "voices", "read"] as const;
type Scope = (typeof SCOPES)[number];

export default function Keys({ config }: { config: Config }) {
  const queries = useQueryClient();
  const { data, error, refetch } = useQuery({ queryKey: ["keys"], queryFn: () => ok(api.GET("/api/keys")) });
  const [secret, setSecret] = useState<string | null>(null);
  return (
    <>
      <div className="heading">
        <div>
          <h1>{t.keys.title}</h1>
          <p className="lead">{t.keys.about}</p>
        </div>
      </div>
      {secret ? (
        <ShownOnce title={t.keys.made} hint={t.keys.once} secret={secret} copyIt={t.keys.copyKey} onSeen={() => setSecret(null)} />
      ) : (
        <Make
          config={config}
          onMade={(made) => {
            setSecret(made);
            queries.invalidateQueries({ queryKey: ["keys"] });
          }}
        />
      )}
      {!data ? (
        <Pending error={error} refetch={refetch} />
      ) : data.length === 0 ? (
        <Empty icon="keys" title={t.keys.empty}>
          <p>{t.keys.emptyHint}</p>
        </Empty>
      ) : (
        <section aria-labelledby="list">
          <h2 id="list">{t.keys.list}</h2>
          <ul className="rows">
            {data.map((key) => (
              <Row key={key.id} of={key} />
            ))}
          </ul>
        </section>
      )}
    </>
  );
}

function Make({ config, onMade }: { config: Config; onMade: (secret: string) => void }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<Scope[]>(["speak", "read"]);
  const [days, setDays] = useState("");
  const [most, setMost] = useState("");
  const [networks, setNetworks] = useState("");
  const [error, setError] = useState<unknown>(null);
  const check = useTurnstile(config.turnstile_site_key, "create-key");
  const make = useMutation({
    mutationFn: () =>
      ok(
        api.POST("/api/keys", {
          body: {
            name: name.trim(),
            scopes,
            expires_at: days ? new Date(Date.now() + 86_400_000 * Number(days)).toISOString() : null,
            monthly_credits: most ? Number(most) : null,
            networks: networks.trim() ? networks.trim().split(/[\s,]+/) : null,
          },
          params: { header: check.token ? { "cf-turnstile-response": check.token } : {} },
        }),
      ),
    onSuccess: (made) => onMade(made.secret),
    onSettled: () => check.spent(),
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    setError(null);
    make.reset();
    if (!scopes.length) return setError(new Refused(t.keys.needScope, 400));
    if (!check.ready) return setError(new Refused(t.turnstile.wait, 403));
    make.mutate();
  }
  return (
    <form className="panel stack" onSubmit={submit}>
      <Field label={t.keys.name} placeholder={t.keys.namePlaceholder} required maxLength={100} autoComplete="off" value={name} onChange={(e) => setName(e.target.value)} />
      <fieldset>
        <legend>{t.keys.scopes}</legend>
        {SCOPES.map((scope) => (
          <label key={scope} className="tick">
            <input type="checkbox" checked={scopes.includes(scope)} onChange={(e) => setScopes(SCOPES.filter((s) => (s === scope ? e.target.checked : scopes.includes(s))))} />
            {t.keys.scope[scope]}
          </label>
        ))}
      </fieldset>
      <details>
        <summary>{t.keys.limits}</summary>
        <div className="stack">
          <Field label={t.keys.days} type="number" min={1} max={3650} value={days} onChange={(e) => setDays(e.target.value)} />
          <Field label={t.keys.most} type="number" min={0} value={most} onChange={(e) => setMost(e.target.value)} />
          <Field label={t.keys.networks} placeholder="203.0.113.0/24" autoComplete="off" value={networks} onChange={(e) => setNetworks(e.target.value)} />
        </div>
      </details>
      {check.element}
      <Problem error={error ?? make.error} />
      <button className="primary" disabled={make.isPending}>
        {t.keys.make}
      </button>
    </form>
  );
}

function Row({ of: key }: { of: Key }) {
  const queries = useQueryClient();
  const [asked, setAsked] = useState(false);
  const revoke = useMutation({
    mutationFn: () => ok(api.DELETE("/api/keys/{key_id}", { params: { path: { key_id: key.id } } })),
    onSuccess() {
      setAsked(false);
      queries.invalidateQueries({ queryKey: ["keys"] });
    },
  });
  return (
    <li className={key.revoked_at ? "over" : undefined}>
      <div className="line">
        <div className="grow">
          <h3>{key.name}</h3>
          <p className="meta">
            <code>fsk_{key.prefix}_…</code>
            <span>{SCOPES.filter((s) => key.scopes.includes(s)).map((s) => t.keys.scope[s]).join(", ")}</span>
          </p>
          <p className="meta">
            <span>{t.keys.created(moment(key.created_at))}</span>
            <span>{key.last_used_at ? t.keys.used(moment(key.last_used_at)) : t.keys.never}</span>
            {key.expires_at && <span>{t.keys.endsOn(moment(key.expires_at))}</span>}
            <span>{key.monthly_credits === null ? t.keys.spent(key.spent) : t.keys.spentOf(key.spent, key.monthly_credits)}</span>
            {key.networks && <span>{t.keys.from(key.networks.join(", "))}</span>}
            {key.revoked_at && <span className="tag">{t.keys.revokedOn(moment(key.revoked_at))}</span>}
          </p>
        </div>
        {!key.revoked_at && (
          <button type="button" aria-label={t.keys.revokeOf(key.name)} onClick={() => setAsked(true)}>
            {t.keys.revoke}
          </button>
        )}
      </div>
      {asked && (
        <Sure title={t.keys.sure(key.name)} hint={t.keys.sureHint} action={t.keys.revoke} busy={revoke.isPending} onYes={() => revoke.mutate()} onNo={() => setAsked(false)}>
          <Problem error={revoke.error} />
        </Sure>
      )}
    </li>
  );
}
