/** Webhooks: where a program of the user's is told of what happens, and the log of it. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";

import { api, type Delivery, ok, Refused, type Webhook } from "../api";
import { moment } from "../format";
import { t } from "../strings";
import { Sure } from "./dialog";
import { Field } from "./field";
import { Pending, Problem } from "./notices";
import { ShownOnce } from "./shown-once";

const EVENTS = ["job.succeeded", "job.failed", "credits.low", "voice.ready"] as const;
type Event = (typeof EVENTS)[number];

const of = (webhook: Webhook) => ({ params: { path: { webhook_id: webhook.id } } });

export function Webhooks() {
  const queries = useQueryClient();
  const { data, error, refetch } = useQuery({ queryKey: ["webhooks"], queryFn: () => ok(api.GET("/api/webhooks")) });
  const [secret, setSecret] = useState<{ title: string; secret: string } | null>(null);
  function show(title: string, made: string) {
    setSecret({ title, secret: made });
    queries.invalidateQueries({ queryKey: ["webhooks"] });
  }
  return (
    <section className="panel stack" aria-labelledby="webhooks">
      <h2 id="webhooks">{t.webhooks.title}</h2>
      <p className="hint">{t.webhooks.about}</p>
      {!data ? (
        <Pending error={error} refetch={refetch} rows={1} />
      ) : (
        data.length > 0 && (
          <ul className="rows">
            {data.map((webhook) => (
              <Row key={webhook.id} of={webhook} onSecret={(made) => show(t.webhooks.rotated, made)} />
            ))}
          </ul>
        )
      )}
      {secret ? (
        <ShownOnce {...secret} hint={t.webhooks.once} copyIt={t.webhooks.copySecret} onSeen={() => setSecret(null)} />
      ) : (
        data && data.length < 5 && <Add onMade={(made) => show(t.webhooks.made, made)} />
      )}
    </section>
  );
}

function Add({ onMade }: { onMade: (secret: string) => void }) {
  const [url, setUrl] = useState("");
  const [events, setEvents] = useState<Event[]>([...EVENTS]);
  const [error, setError] = useState<unknown>(null);
  const add = useMutation({
    mutationFn: () => ok(api.POST("/api/webhooks", { body: { url: url.trim(), events } })),
    onSuccess: (made) => onMade(made.secret),
  });
  function submit(event: FormEvent) {
    event.preventDefault();
    add.reset();
    setError(events.length ? null : new Refused(t.webhooks.needEvent, 400));
    if (events.length) add.mutate();
  }
  return (
    <form className="stack" onSubmit={submit}>
      <Field label={t.webhooks.url} type="url" placeholder={t.webhooks.urlPlaceholder} required maxLength={2000} autoComplete="off" value={url} onChange={(e) => setUrl(e.target.value)} />
      <fieldset>
        <legend>{t.webhooks.events}</legend>
        {EVENTS.map((event) => (
          <label key={event} className="tick">
            <input type="checkbox" checked={events.includes(event)} onChange={(e) => setEvents(EVENTS.filter((one) => (one === event ? e.target.checked : events.includes(one))))} />
            {t.webhooks.event[event]}
          </label>
        ))}
      </fieldset>
      <Problem error={error ?? add.error} />
      <div className="actions">
        <button disabled={add.isPending}>{t.webhooks.add}</button>
      </div>
    </form>
  );
}

function Row({ of: webhook, onSecret }: { of: Webhook; onSecret: (secret: string) => void }) {
  const queries = useQueryClient();
  const [asked, setAsked] = useState<"rotate" | "delete" | null>(null);
  const [logged, setLogged] = useState(false);
  const changed = () => queries.invalidateQueries({ queryKey: ["webhooks"] });
  const test = useMutation({ mutationFn: () => ok(api.POST("/api/webhooks/{webhook_id}/test", of(webhook))), onSettled: changed });
  const rotate = useMutation({
    mutationFn: () => ok(api.POST("/api/webhooks/{webhook_id}/secret", of(webhook))),
    onSuccess(made) {
      setAsked(null);
      onSecret(made.secret);
    },
  });
  const remove = useMutation({
    mutationFn: () => ok(api.DELETE("/api/webhooks/{webhook_id}", of(webhook))),
    onSuccess() {
      setAsked(null);
      changed();
    },
  });
  const ask = asked === "rotate" ? rotate : remove;
  return (
    <li>
      <h3 className="address">{webhook.url}</h3>
      <p className="meta">
        {webhook.events.map((event) => (
          <span key={event}>{t.webhooks.event[event]}</span>
        ))}
        <span>{webhook.delivered_at ? t.webhooks.arrived(moment(webhook.delivered_at)) : t.webhooks.never}</span>
        {webhook.waiting > 0 && <span>{t.webhooks.waiting(webhook.waiting)}</span>}
        {webhook.disabled_at && <span className="tag bad">{t.webhooks.disabled}</span>}
      </p>
      {webhook.disabled_at && <p className="hint">{t.webhooks.disabledHint}</p>}
      <div className="actions tight">
        <button type="button" aria-label={t.webhooks.testOf(webhook.url)} disabled={test.isPending} aria-busy={test.isPending} onClick={() => test.mutate()}>
          {t.webhooks.test}
        </button>
        <button type="button" aria-label={t.webhooks.logOf(webhook.url)} aria-expanded={logged} onClick={() => setLogged(!logged)}>
          {t.webhooks.log}
        </button>
        <button type="button" aria-label={t.webhooks.rotateOf(webhook.url)} onClick={() => setAsked("rotate")}>
          {t.webhooks.rotate}
        </button>
        <button type="button" aria-label={t.webhooks.deleteOf(webhook.url)} onClick={() => setAsked("delete")}>
          {t.delete}
        </button>
      </div>
      <p role="status">{test.data ? outcome(test.data) : ""}</p>
      <Problem error={test.error} />
      {logged && <Log of={webhook} />}
      {asked && (
        <Sure
          title={asked === "rotate" ? t.webhooks.sureRotate : t.webhooks.sure}
          hint={asked === "rotate" ? t.webhooks.sureRotateHint : t.webhooks.sureHint}
          action={asked === "rotate" ? t.webhooks.rotate : t.delete}
          busy={ask.isPending}
          onYes={() => ask.mutate()}
          onNo={() => setAsked(null)}
        >
          <Problem error={ask.error} />
        </Sure>
      )}
    </li>
  );
}

const outcome = (delivery: Delivery) =>
  delivery.outcome === "delivered" ? t.webhooks.tested(delivery.status!, delivery.milliseconds ?? 0) : t.webhooks.failed(delivery.error ?? "");

function Log({ of: webhook }: { of: Webhook }) {
  const { data, error, refetch } = useQuery({
    queryKey: ["webhooks", webhook.id],
    queryFn: () => ok(api.GET("/api/webhooks/{webhook_id}/deliveries", of(webhook))),
  });
  if (!data) return <Pending error={error} refetch={refetch} rows={1} />;
  if (data.length === 0) return <p className="hint">{t.webhooks.noLog}</p>;
  return (
    <ul className="log" aria-label={t.webhooks.logOf(webhook.url)}>
      {data.map((delivery) => (
        <li key={delivery.id}>
          <p>
            {t.webhooks.event[delivery.event]}
            {delivery.outcome === "delivered" && <span className="tag">{t.webhooks.delivered}</span>}
            {delivery.outcome === "failed" && <span className="tag bad">{t.webhooks.lost}</span>}
          </p>
          <p className="meta">
            <span>{moment(delivery.created_at)}</span>
            <span>{t.webhooks.attempts(delivery.attempts)}</span>
            {delivery.error && <span>{delivery.error}</span>}
            {!delivery.outcome && <span>{t.webhooks.next(moment(delivery.next_at))}</span>}
            <code>{delivery.id}</code>
          </p>
        </li>
      ))}
    </ul>
  );
}
