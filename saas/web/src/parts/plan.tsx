/** One's plan: what it brings and when it is renewed, the plans for sale, and the way to Stripe's billing page. */

import { useMutation, useQuery } from "@tanstack/react-query";

import { api, type Config, ok } from "../api";
import { moment, money } from "../format";
import { t } from "../strings";
import { Problem } from "./notices";

export function Plan({ config }: { config: Config }) {
  const { data, error } = useQuery({ queryKey: ["billing"], queryFn: () => ok(api.GET("/api/billing")) });
  const leave = { onSuccess: ({ url }: { url: string }) => location.assign(url) };
  const subscribe = useMutation({ mutationFn: (plan: string) => ok(api.POST("/api/billing/checkout", { body: { plan } })), ...leave });
  const manage = useMutation({ mutationFn: () => ok(api.POST("/api/billing/portal")), ...leave });
  if (error) return <Problem error={error} />;
  if (!data || !(config.plans.length || data.subscription)) return null;
  const { plan, subscription, expiring } = data;
  const leaving = subscribe.isPending || subscribe.isSuccess || manage.isPending || manage.isSuccess;
  return (
    <section aria-labelledby="plan">
      <h2 id="plan">{t.plan.title}</h2>
      <div className="panel">
        <p>
          <strong>{plan.name}</strong>
        </p>
        {subscription && <p className="hint">{renewal(subscription)}</p>}
        {expiring.map((lot) => (
          <p className="hint" key={lot.expires_at}>
            {t.plan.expiring(lot.credits, moment(lot.expires_at))}
          </p>
        ))}
        {data.portal && (
          <button type="button" disabled={leaving} onClick={() => manage.mutate()}>
            {t.plan.manage}
          </button>
        )}
      </div>
      {!subscription && (
        <ul className="packs">
          {config.plans.map((one) => {
            const price = t.plan.price(money(one.amount_cents ?? 0, one.currency), one.period);
            return (
              <li key={one.id}>
                <button type="button" aria-label={t.plan.subscribe(one.name, price)} disabled={leaving} onClick={() => subscribe.mutate(one.id)}>
                  <strong>{one.name}</strong>
                  <span>{t.plan.brings(one.credits)}</span>
                  <span className="price">{price}</span>
                </button>
              </li>
            );
          })}
        </ul>
      )}
      <Problem error={subscribe.error ?? manage.error} />
    </section>
  );
}

function renewal({ status, period_end, ends_at }: { status: string; period_end: string | null; ends_at: string | null }) {
  if (status === "past_due" || status === "unpaid") return t.plan.unpaid;
  if (ends_at) return t.plan.ends(moment(ends_at));
  return period_end ? t.plan.renewed(moment(period_end)) : "";
}
