/** The pages of the desk. */

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { type ReactNode, useDeferredValue, useState } from "react";
import { Link, useParams, useSearchParams } from "wouter";

import { api, ok } from "../api";
import { count, credits, duration } from "../format";
import { Icon } from "../icons";
import { Pending } from "../parts/notices";
import type { components } from "../schema";
import { Opens } from "./act";
import { MoveCredits, RevokeKeys, SetPlan, SetPrice, Suspend, Unsuspend } from "./acts";
import { short, stamp } from "./format";
import { Actions, JobActs, Jobs, Keys, Ledger, Pages, Payments, Status, sum, useOnly, UserLink, Users, When } from "./looks";
import { useAccount, useActions, useJobs, useLedger, usePayments, usePrices } from "./queries";
import { d } from "./strings";
import { Facts, Table } from "./table";

type Schemas = components["schemas"];

function Section({ id, title, all, children }: { id: string; title: string; all?: string; children: ReactNode }) {
  return (
    <section aria-labelledby={id}>
      <div className="over-table">
        <h2 id={id}>{title}</h2>
        {all && (
          <Link href={all} aria-label={`${d.all}: ${title}`}>
            {d.all}
          </Link>
        )}
      </div>
      {children}
    </section>
  );
}

export function UsersPage() {
  const [typed, setTyped] = useState("");
  const search = useDeferredValue(typed.trim());
  const { data, error, refetch } = useQuery({
    queryKey: ["desk", "users", search],
    queryFn: () => ok(api.GET("/api/admin/users", { params: { query: { search } } })),
    placeholderData: keepPreviousData,
  });
  return (
    <>
      <div className="heading">
        <div>
          <h1>{d.pages.users}</h1>
          <p className="lead">{d.users.hint}</p>
        </div>
        <div className="search">
          <Icon name="search" />
          <input type="search" aria-label={d.users.search} placeholder={d.users.search} maxLength={320} value={typed} onChange={(e) => setTyped(e.target.value)} />
        </div>
      </div>
      {!data ? (
        <Pending error={error} refetch={refetch} rows={5} />
      ) : !data.length && search ? (
        <p className="lead" role="status">
          {d.users.nothing(search)}
        </p>
      ) : (
        <Users rows={data} />
      )}
    </>
  );
}

export function AccountPage() {
  const { who } = useParams<{ who: string }>();
  const { data, error, refetch } = useAccount(who);
  if (!data) return <Pending error={error} refetch={refetch} rows={5} />;
  const { user } = data;
  const all = (page: string) => `/admin/${page}?user=${user.id}`;
  return (
    <>
      <h1 className="address">{user.email ?? user.id}</h1>
      {user.closed_at && <p className="notice bad">{d.users.closedOn(stamp(user.closed_at))}</p>}
      {user.suspended_until && <p className="notice bad">{forEver(user.suspended_until) ? d.users.suspendedOpen : d.users.suspendedUntil(stamp(user.suspended_until))}</p>}
      <Facts
        of={[
          [d.fields.balance, credits(user.balance)],
          [d.fields.reserved, user.reserved ? credits(user.reserved) : null],
          [d.fields.debt, user.debt ? credits(user.debt) : null],
          [d.fields.plan, user.plan],
          [d.fields.jobs, <JobsBy key="jobs" status={user.jobs} />],
          [d.fields.voices, user.voices ? count(user.voices) : null],
          [d.fields.since, stamp(user.created_at)],
          [d.fields.name, user.display_name],
          [d.fields.customer, user.stripe_customer && <code>{user.stripe_customer}</code>],
          [d.fields.id, <code key="id">{user.id}</code>],
        ]}
      />
      {!user.closed_at && (
        <div className="actions">
          <Opens label={d.act.grant}>{(close) => <MoveCredits user={user} way="grant" onClose={close} />}</Opens>
          {user.balance > 0 && <Opens label={d.act.take}>{(close) => <MoveCredits user={user} way="take" onClose={close} />}</Opens>}
          <Opens label={d.act.plan}>{(close) => <SetPlan user={user} onClose={close} />}</Opens>
          {user.suspended_until ? (
            <Opens label={d.act.unsuspend}>{(close) => <Unsuspend user={user} onClose={close} />}</Opens>
          ) : (
            <Opens label={d.act.suspend}>{(close) => <Suspend user={user} onClose={close} />}</Opens>
          )}
          {data.keys.some((key) => !key.revoked_at) && <Opens label={d.act.revokeAll}>{(close) => <RevokeKeys user={user} onClose={close} />}</Opens>}
        </div>
      )}
      <Section id="payments" title={d.pages.payments} all={all("payments")}>
        <Payments rows={data.payments} one />
      </Section>
      <Section id="jobs" title={d.pages.jobs} all={all("jobs")}>
        <Jobs rows={data.jobs} one />
      </Section>
      <Section id="ledger" title={d.pages.ledger} all={all("ledger")}>
        <Ledger rows={data.ledger} one />
      </Section>
      <Section id="keys" title={d.keys.title}>
        <Keys rows={data.keys} user={user} />
      </Section>
      <Section id="actions" title={d.pages.actions} all={all("actions")}>
        <Actions rows={data.actions} />
      </Section>
    </>
  );
}

function JobsBy({ status }: { status: Record<string, number> }) {
  const all = Object.entries(status);
  return all.length ? <span className="long">{all.map(([name, n]) => `${count(n)} ${(d.jobs.status[name] ?? name).toLowerCase()}`).join(", ")}</span> : count(0);
}

/** A suspension that waits to be lifted ends in a hundred years. */
const forEver = (until: string) => new Date(until).getFullYear() > new Date().getFullYear() + 90;

export function LedgerPage() {
  const [user, line] = useOnly();
  return (
    <>
      <h1>{d.pages.ledger}</h1>
      {line}
      <Pages of={useLedger(user)}>{(rows) => <Ledger rows={rows} one={Boolean(user)} />}</Pages>
    </>
  );
}

const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled", "expired"] as const;

export function JobsPage() {
  const [user, line] = useOnly();
  const [params, setParams] = useSearchParams();
  const status = STATUSES.find((one) => one === params.get("status"));
  return (
    <>
      <div className="heading">
        <h1>{d.pages.jobs}</h1>
        <select aria-label={d.fields.status} value={status ?? ""} onChange={(e) => setParams({ ...(user && { user }), ...(e.target.value && { status: e.target.value }) })}>
          <option value="">{d.jobs.any}</option>
          {STATUSES.map((one) => (
            <option key={one} value={one}>
              {d.jobs.status[one]}
            </option>
          ))}
        </select>
      </div>
      {line}
      <Pages of={useJobs(user, status)}>{(rows) => <Jobs rows={rows} one={Boolean(user)} />}</Pages>
    </>
  );
}

export function JobPage() {
  const { id } = useParams<{ id: string }>();
  const { data, error, refetch } = useQuery({ queryKey: ["desk", "job", id], queryFn: () => ok(api.GET("/api/admin/jobs/{job_id}", { params: { path: { job_id: id } } })) });
  if (!data) return <Pending error={error} refetch={refetch} rows={5} />;
  const { job } = data;
  return (
    <>
      <h1 className="address">{d.jobs.titleOf(short(job.id))}</h1>
      <Facts
        of={[
          [d.fields.status, <Status key="status" of={job.status} />],
          [
            d.fields.user,
            <span key="user" className="long">
              <UserLink id={job.user_id} email={job.email} />
            </span>,
          ],
          [d.fields.reserved, credits(job.reserved)],
          [d.fields.charged, credits(job.charged)],
          [d.fields.characters, count(job.characters)],
          [d.fields.seconds, job.seconds !== null ? `${duration(job.seconds)}${job.partial ? ` · ${d.jobs.partial}` : ""}` : null],
          [d.fields.backend, job.backend],
          [d.fields.tries, count(job.attempts)],
          [d.fields.when, stamp(job.created_at)],
          [d.fields.started, job.started_at && stamp(job.started_at)],
          [d.fields.finished, job.finished_at && stamp(job.finished_at)],
          [d.fields.error, job.error && <span key="error" className="long">{job.error}</span>],
          [d.fields.id, <code key="id">{job.id}</code>],
        ]}
      />
      <div className="actions">
        <JobActs of={job} />
      </div>
      <Section id="ledger" title={d.pages.ledger}>
        <Ledger rows={data.ledger} one />
      </Section>
      <Section id="actions" title={d.pages.actions}>
        <Actions rows={data.actions} />
      </Section>
    </>
  );
}

export function PaymentsPage() {
  const [user, line] = useOnly();
  return (
    <>
      <h1>{d.pages.payments}</h1>
      {line}
      <Pages of={usePayments(user)}>{(rows) => <Payments rows={rows} one={Boolean(user)} />}</Pages>
    </>
  );
}

const PERIODS = [7, 30, 90, 365];

export function RevenuePage() {
  const [days, setDays] = useState(30);
  const { data, error, refetch } = useQuery({
    queryKey: ["desk", "revenue", days],
    queryFn: () => ok(api.GET("/api/admin/revenue", { params: { query: { days } } })),
    placeholderData: keepPreviousData,
  });
  const currencies = [...new Set(data?.map((day) => day.currency))];
  return (
    <>
      <div className="heading">
        <h1>{d.pages.revenue}</h1>
        <select aria-label={d.revenue.period} value={days} onChange={(e) => setDays(Number(e.target.value))}>
          {PERIODS.map((n) => (
            <option key={n} value={n}>
              {d.revenue.days(n)}
            </option>
          ))}
        </select>
      </div>
      {!data && <Pending error={error} refetch={refetch} rows={5} />}
      {currencies.map((currency) => {
        const rows = data!.filter((day) => day.currency === currency);
        const total = (part: "paid_cents" | "refunded_cents" | "disputed_cents" | "net_cents" | "payments" | "credits") => rows.reduce((all, day) => all + day[part], 0);
        return (
          <Facts
            key={currency}
            of={[
              [d.fields.net, <strong key="net">{sum(total("net_cents"), currency)}</strong>],
              [d.fields.paid, sum(total("paid_cents"), currency)],
              [d.fields.refunded, sum(total("refunded_cents"), currency)],
              [d.fields.disputed, sum(total("disputed_cents"), currency)],
              [d.fields.payments, count(total("payments"))],
              [d.fields.credits, credits(total("credits"))],
            ]}
          />
        );
      })}
      {data && (
        <Table
          label={d.pages.revenue}
          rows={data.toReversed()}
          id={(day) => day.day + day.currency}
          columns={[
            { head: d.fields.day, cell: (day) => new Date(`${day.day}T00:00Z`).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" }), wide: true },
            { head: d.fields.payments, cell: (day) => count(day.payments), number: true },
            { head: d.fields.paid, cell: (day) => sum(day.paid_cents, day.currency), number: true },
            { head: d.fields.refunded, cell: (day) => (day.refunded_cents ? sum(day.refunded_cents, day.currency) : null), number: true },
            { head: d.fields.disputed, cell: (day) => (day.disputed_cents ? sum(day.disputed_cents, day.currency) : null), number: true },
            { head: d.fields.net, cell: (day) => sum(day.net_cents, day.currency), number: true },
            { head: d.fields.credits, cell: (day) => credits(day.credits), number: true },
          ]}
        />
      )}
    </>
  );
}

const OFTEN = 5000; // ms between looks at what changes by itself

export function QueuePage() {
  const queue = useQuery({ queryKey: ["desk", "queue"], queryFn: () => ok(api.GET("/api/admin/queue")), refetchInterval: OFTEN });
  const workers = useQuery({ queryKey: ["desk", "workers"], queryFn: () => ok(api.GET("/api/admin/workers")), refetchInterval: OFTEN });
  return (
    <>
      <h1>{d.pages.queue}</h1>
      {!queue.data ? (
        <Pending error={queue.error} refetch={queue.refetch} rows={2} />
      ) : (
        <>
          <Facts
            of={[
              [d.fields.waiting, count(queue.data.waiting)],
              [d.fields.running, count(queue.data.running)],
              [d.queue.oldest, queue.data.waiting ? duration(queue.data.oldest_seconds) : null],
              [d.fields.lapsed, count(queue.data.lapsed)],
            ]}
          />
          <Section id="whose" title={d.queue.users}>
            <Table
              label={d.queue.users}
              rows={queue.data.users}
              id={(row) => row.user_id}
              columns={[
                { head: d.fields.user, cell: (row) => <UserLink id={row.user_id} email={row.email} />, wide: true },
                { head: d.fields.waiting, cell: (row) => count(row.waiting), number: true },
                { head: d.fields.running, cell: (row) => count(row.running), number: true },
                { head: d.fields.reserved, cell: (row) => credits(row.reserved), number: true },
              ]}
            />
          </Section>
        </>
      )}
      {!workers.data ? (
        <Pending error={workers.error} refetch={workers.refetch} rows={2} />
      ) : (
        <>
          <Section id="workers" title={d.queue.workers}>
            <Table
              label={d.queue.workers}
              rows={workers.data.jobs}
              id={(row) => row.backend}
              columns={[
                { head: d.fields.backend, cell: (row) => row.backend, wide: true },
                { head: d.fields.running, cell: (row) => count(row.running), number: true },
                { head: d.fields.succeeded, cell: (row) => count(row.succeeded), number: true },
                { head: d.fields.failed, cell: (row) => count(row.failed), number: true },
                { head: d.fields.cancelled, cell: (row) => count(row.cancelled), number: true },
                { head: d.fields.expired, cell: (row) => count(row.expired), number: true },
                { head: d.fields.retried, cell: (row) => count(row.retried), number: true },
                { head: d.fields.audio, cell: (row) => duration(row.audio_seconds), number: true },
                { head: d.fields.median, cell: (row) => row.median_seconds !== null && duration(row.median_seconds), number: true },
                { head: d.fields.success, cell: (row) => <When at={row.last_success} /> },
              ]}
            />
          </Section>
          <Section id="backend" title={d.queue.backend}>
            <Facts of={Object.entries(workers.data.backend).map(([name, value]) => [name.replaceAll("_", " "), told(value)])} />
          </Section>
        </>
      )}
    </>
  );
}

/** What a backend says of itself, whatever it is: `idle 1, running 0`. */
function told(value: unknown): string {
  if (value === null || typeof value !== "object") return String(value ?? "");
  return Object.entries(value)
    .map(([name, part]) => `${Array.isArray(value) ? "" : `${name} `}${told(part)}`)
    .join(", ");
}

export function PricesPage() {
  const { data, error, refetch } = usePrices();
  if (!data) return <Pending error={error} refetch={refetch} rows={5} />;
  const now = data.prices.find((price) => price.active);
  return (
    <>
      <div className="heading">
        <div>
          <h1>{d.pages.prices}</h1>
          {now && <p className="lead">{d.prices.now(now.credits_per_second, now.minimum)}</p>}
        </div>
        <Opens label={d.prices.change}>{(close) => <SetPrice now={now} onClose={close} />}</Opens>
      </div>
      <Section id="prices" title={d.prices.history}>
        <Table
          label={d.prices.history}
          rows={data.prices}
          id={(price) => price.id}
          columns={[
            { head: d.fields.price, cell: (price) => `${price.id}, ${price.name}`, wide: true },
            { head: d.fields.perSecond, cell: (price) => count(price.credits_per_second), number: true },
            { head: d.fields.minimum, cell: (price) => count(price.minimum), number: true },
            { head: d.fields.since, cell: (price) => <When at={price.created_at} /> },
            { head: d.fields.state, cell: (price) => price.active && <span className="tag">{d.prices.active}</span> },
          ]}
        />
      </Section>
      <Section id="packs" title={d.prices.packs}>
        <Table
          label={d.prices.packs}
          rows={data.packs}
          id={(pack) => pack.id}
          columns={[
            { head: d.fields.pack, cell: (pack) => pack.id, wide: true },
            { head: d.fields.credits, cell: (pack) => credits(pack.credits), number: true },
            { head: d.fields.price, cell: (pack) => sum(pack.amount_cents, pack.currency), number: true },
            { head: d.fields.state, cell: (pack) => pack.active && <span className="tag">{d.prices.forSale}</span> },
          ]}
        />
      </Section>
      <Section id="plans" title={d.prices.plans}>
        <Table
          label={d.prices.plans}
          rows={data.plans}
          id={(plan) => plan.id}
          columns={[
            { head: d.fields.plan, cell: (plan) => plan.name, wide: true },
            { head: d.fields.period, cell: (plan) => plan.amount_cents !== null && d.prices.a(sum(plan.amount_cents, plan.currency), plan.period), number: true },
            { head: d.fields.credits, cell: (plan) => credits(plan.credits), number: true },
            { head: d.fields.weight, cell: (plan) => count(plan.weight), number: true },
            { head: d.fields.limits, cell: limits, wide: true },
            { head: d.fields.state, cell: (plan) => plan.active && plan.stripe_price && <span className="tag">{d.prices.forSale}</span> },
          ]}
        />
      </Section>
    </>
  );
}

function limits(plan: Schemas["DeskPlan"]) {
  const of: [number | null, (n: number) => string][] = [
    [plan.max_running, d.prices.running], [plan.max_waiting, d.prices.waiting], [plan.per_minute, d.prices.perMinute], [plan.max_characters, d.prices.characters],
    [plan.max_voices, d.prices.voices], [plan.result_days, d.prices.days],
  ];
  return of.flatMap(([n, words]) => (n === null ? [] : [words(n)])).join(", ");
}

export function ActionsPage() {
  const [user, line] = useOnly();
  return (
    <>
      <h1>{d.pages.actions}</h1>
      {line}
      <Pages of={useActions(user)}>{(rows) => <Actions rows={rows} />}</Pages>
    </>
  );
}
