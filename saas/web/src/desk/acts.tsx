/** The acts of the desk, each with what it asks for. */

import { useId, useState } from "react";

import { api, ok } from "../api";
import { money } from "../format";
import { Field } from "../parts/field";
import { Pending } from "../parts/notices";
import { Act } from "./act";
import { smallest, step } from "./format";
import { type Job, type Key, type Payment, usePrices, type User } from "./queries";
import { d } from "./strings";

interface Closing {
  onClose: () => void;
}

export const nameOf = (user: { email?: string | null; id?: string; user_id?: string }) => user.email ?? user.id ?? user.user_id ?? "";

export function MoveCredits({ user, way, onClose }: { user: User; way: "grant" | "take" } & Closing) {
  const [typed, setTyped] = useState("");
  const [reference] = useState(() => `desk ${crypto.randomUUID()}`); // so that credits move once, however often it is asked for
  const number = Number(typed);
  const path = way === "grant" ? ("/api/admin/users/{user_id}/grant" as const) : ("/api/admin/users/{user_id}/take" as const);
  return (
    <Act
      title={d.act[way]}
      hint={d.act.grantHint(nameOf(user), user.balance)}
      danger={way === "take"}
      run={(reason) => ok(api.POST(path, { params: { path: { user_id: user.id } }, body: { credits: number, reason, reference } }))}
      said={(done) => (way === "grant" ? d.act.granted(number, done.balance) : d.act.taken(number, done.balance))}
      onClose={onClose}
    >
      <Field label={d.act.how} type="number" min={1} max={way === "take" ? user.balance : 1e12} step={1} required autoFocus value={typed} onChange={(e) => setTyped(e.target.value)} />
    </Act>
  );
}

export function SetPlan({ user, onClose }: { user: User } & Closing) {
  const { data, error, refetch } = usePrices();
  const [plan, setPlan] = useState(user.plan);
  const id = useId();
  return (
    <Act
      title={d.act.plan}
      hint={d.act.planHint(nameOf(user), user.plan)}
      run={(reason) => ok(api.POST("/api/admin/users/{user_id}/plan", { params: { path: { user_id: user.id } }, body: { plan, reason } }))}
      said={(done) => d.act.planSet(done.plan, done.before)}
      onClose={onClose}
    >
      {data ? (
        <div className="field">
          <label htmlFor={id}>{d.fields.plan}</label>
          <select id={id} value={plan} onChange={(e) => setPlan(e.target.value)}>
            {data.plans.map((one) => (
              <option key={one.id} value={one.id}>
                {one.name}
              </option>
            ))}
          </select>
        </div>
      ) : (
        <Pending error={error} refetch={refetch} rows={1} />
      )}
    </Act>
  );
}

export function Suspend({ user, onClose }: { user: User } & Closing) {
  const [days, setDays] = useState("");
  return (
    <Act
      title={d.act.suspend}
      hint={d.act.suspendHint(nameOf(user))}
      danger
      run={(reason) => ok(api.POST("/api/admin/users/{user_id}/suspend", { params: { path: { user_id: user.id } }, body: { reason, days: days ? Number(days) : null } }))}
      said={(done) => d.act.suspended(done.ended_jobs)}
      onClose={onClose}
    >
      <Field label={d.act.days} type="number" min={1} max={36_500} step={1} autoFocus value={days} onChange={(e) => setDays(e.target.value)} />
    </Act>
  );
}

export function Unsuspend({ user, onClose }: { user: User } & Closing) {
  return (
    <Act
      title={d.act.unsuspend}
      hint={d.act.unsuspendHint(nameOf(user))}
      run={(reason) => ok(api.POST("/api/admin/users/{user_id}/unsuspend", { params: { path: { user_id: user.id } }, body: { reason } }))}
      said={() => d.act.unsuspended}
      onClose={onClose}
    />
  );
}

/** Revokes one key, or all. */
export function RevokeKeys({ user, only, onClose }: { user: User; only?: Key } & Closing) {
  return (
    <Act
      title={only ? d.act.revokeOf(only.name) : d.act.revokeAll}
      hint={only ? d.act.revokeHint : d.act.revokeAllHint(nameOf(user))}
      danger
      run={(reason) => ok(api.POST("/api/admin/users/{user_id}/revoke-keys", { params: { path: { user_id: user.id } }, body: { reason, key_id: only?.id ?? null } }))}
      said={(done) => d.act.revoked(done.revoked.map((prefix) => `fsk_${prefix}_…`).join(", "))}
      onClose={onClose}
    />
  );
}

export function CancelJob({ job, onClose }: { job: Job } & Closing) {
  return (
    <Act
      title={d.act.cancelTitle}
      hint={d.act.cancelHint}
      danger
      run={(reason) => ok(api.POST("/api/admin/jobs/{job_id}/cancel", { params: { path: { job_id: job.id } }, body: { reason } }))}
      said={(done) => d.act.cancelled(done.job.charged)}
      onClose={onClose}
    />
  );
}

export function RetryJob({ job, onClose }: { job: Job } & Closing) {
  return (
    <Act
      title={d.act.retryTitle}
      hint={d.act.retryHint(nameOf(job))}
      run={(reason) => ok(api.POST("/api/admin/jobs/{job_id}/retry", { params: { path: { job_id: job.id } }, body: { reason } }))}
      said={(done) => d.act.retried(done.job.reserved)}
      onClose={onClose}
    />
  );
}

export function RefundPayment({ payment, onClose }: { payment: Payment } & Closing) {
  const currency = payment.currency ?? "usd";
  const [typed, setTyped] = useState("");
  const left = payment.amount_cents - payment.returned_cents;
  const body = { cents: typed ? smallest(typed, currency) : null, returned_cents: payment.returned_cents }; // as it was when the dialog was opened
  return (
    <Act
      title={d.act.refund}
      hint={d.act.refundHint(money(left, currency), nameOf(payment))}
      danger
      run={(reason) => ok(api.POST("/api/admin/payments/{payment}/refund", { params: { path: { payment: payment.reference } }, body: { reason, ...body } }))}
      said={(done) => d.act.refunded(money(done.cents, currency), done.balance)}
      onClose={onClose}
    >
      <Field
        label={d.act.sum(currency.toUpperCase())}
        type="number"
        min={step(currency)}
        max={left * step(currency)}
        step={step(currency)}
        autoFocus
        value={typed}
        onChange={(e) => setTyped(e.target.value)}
      />
    </Act>
  );
}

export function SetPrice({ now, onClose }: { now?: { credits_per_second: number; minimum: number } } & Closing) {
  const [typed, setTyped] = useState(now ? String(now.credits_per_second) : "");
  const [minimum, setMinimum] = useState(now ? String(now.minimum) : "");
  return (
    <Act
      title={d.act.price}
      hint={d.act.priceHint}
      run={(reason) => ok(api.POST("/api/admin/prices", { body: { reason, credits_per_second: Number(typed), minimum: Number(minimum) } }))}
      said={({ price }) => d.act.priceSet(price.credits_per_second, price.minimum)}
      onClose={onClose}
    >
      <Field label={d.act.perSecond} type="number" min={0} max={1e6} step="any" required autoFocus value={typed} onChange={(e) => setTyped(e.target.value)} />
      <Field label={d.act.minimum} type="number" min={0} max={1e9} step={1} required value={minimum} onChange={(e) => setMinimum(e.target.value)} />
    </Act>
  );
}
