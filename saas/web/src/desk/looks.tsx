/** The tables that several pages of the desk show. */

import type { InfiniteData, UseInfiniteQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Link, useSearchParams } from "wouter";

import { count, credits, duration, money } from "../format";
import { Pending } from "../parts/notices";
import { t } from "../strings";
import { Opens } from "./act";
import { CancelJob, RefundPayment, RetryJob, RevokeKeys } from "./acts";
import { short, stamp } from "./format";
import { type Action, type Entry, type Job, type Key, type Payment, useAccount, type User } from "./queries";
import { d } from "./strings";
import { type Column, Table } from "./table";

/** The rows of all pages so far, and a button for the next one. */
export function Pages<Row>({ of, children }: { of: UseInfiniteQueryResult<InfiniteData<Row[]>>; children: (rows: Row[]) => ReactNode }) {
  if (!of.data) return <Pending error={of.error} refetch={of.refetch} rows={5} />;
  return (
    <>
      {children(of.data.pages.flat())}
      {of.hasNextPage && (
        <button type="button" className="more" disabled={of.isFetchingNextPage} onClick={() => of.fetchNextPage()}>
          {t.more}
        </button>
      )}
    </>
  );
}

/** The user in the address bar, whose rows alone are shown, and a line that says so. */
export function useOnly(): [string | undefined, ReactNode] {
  const [params, setParams] = useSearchParams();
  const user = params.get("user") ?? undefined;
  const { data } = useAccount(user ?? null);
  return [
    user,
    user && (
      <p className="lead only">
        {d.of(data?.user.email ?? short(user))}{" "}
        <button type="button" className="link" onClick={() => setParams({})}>
          {d.ofAll}
        </button>
      </p>
    ),
  ];
}

export const When = ({ at }: { at: string | null }) => at && <time dateTime={at}>{stamp(at)}</time>;

export const UserLink = ({ id, email }: { id: string; email?: string | null }) => <Link href={`/admin/users/${id}`} className="who">{email ?? <code>{short(id)}</code>}</Link>;

const JobLink = ({ id }: { id: string }) => (
  <Link href={`/admin/jobs/${id}`}>
    <code>{short(id)}</code>
  </Link>
);

const GOOD = ["succeeded", "queued", "running"];
export const Status = ({ of }: { of: string }) => <span className={GOOD.includes(of) ? "tag" : "tag bad"}>{d.jobs.status[of] ?? of}</span>;

const open = (job: Job) => job.status === "queued" || job.status === "running";

/** The user's column, unless all rows are one user's. */
const who = <Row extends { user_id: string; email?: string | null }>(one?: boolean): Column<Row>[] =>
  one ? [] : [{ head: d.fields.user, cell: (row) => <UserLink id={row.user_id} email={row.email} />, wide: true }];

export function Users({ rows }: { rows: User[] }) {
  return (
    <Table
      label={d.pages.users}
      rows={rows}
      id={(user) => user.id}
      columns={[
        { head: d.fields.user, cell: (user) => <UserLink id={user.id} email={user.email} />, wide: true },
        { head: d.fields.plan, cell: (user) => user.plan },
        { head: d.fields.balance, cell: (user) => credits(user.balance), number: true },
        { head: d.fields.since, cell: (user) => <When at={user.created_at} /> },
        { head: d.fields.state, cell: (user) => <UserState of={user} /> },
      ]}
    />
  );
}

export function UserState({ of: user }: { of: User }) {
  if (user.closed_at) return <span className="tag">{d.users.closed}</span>;
  return user.suspended_until && <span className="tag bad">{d.users.suspended}</span>;
}

export function Ledger({ rows, one }: { rows: Entry[]; one?: boolean }) {
  return (
    <Table
      label={d.pages.ledger}
      rows={rows}
      id={(entry) => entry.id}
      columns={[
        ...who<Entry>(one),
        { head: d.fields.when, cell: (entry) => <When at={entry.created_at} /> },
        { head: d.fields.what, cell: (entry) => entry.kind },
        { head: d.fields.amount, cell: (entry) => <Signed of={entry.amount} />, number: true },
        { head: d.fields.after, cell: (entry) => credits(entry.balance_after), number: true },
        { head: d.fields.for, cell: (entry) => (entry.job_id ? <JobLink id={entry.job_id} /> : <span className="words">{entry.reference}</span>), wide: true },
      ]}
    />
  );
}

function Signed({ of: amount }: { of: number }) {
  return (
    <span className={amount > 0 ? "plus" : undefined}>
      {amount > 0 ? "+" : amount < 0 ? "−" : ""}
      {credits(Math.abs(amount))}
    </span>
  );
}

export function Jobs({ rows, one }: { rows: Job[]; one?: boolean }) {
  return (
    <Table
      label={d.pages.jobs}
      rows={rows}
      id={(job) => job.id}
      columns={[
        { head: d.fields.job, cell: (job) => <JobLink id={job.id} /> },
        { head: d.fields.status, cell: (job) => <Status of={job.status} /> },
        ...who<Job>(one),
        { head: d.fields.when, cell: (job) => <When at={job.created_at} /> },
        { head: d.fields.characters, cell: (job) => count(job.characters), number: true },
        { head: d.fields.seconds, cell: (job) => job.seconds !== null && duration(job.seconds), number: true },
        { head: d.fields.charged, cell: (job) => (open(job) ? `≤ ${credits(job.reserved)}` : credits(job.charged)), number: true },
        { head: d.fields.error, cell: (job) => job.error && <span className="words">{job.error}</span>, wide: true },
        { head: d.fields.acts, cell: (job) => <JobActs of={job} />, wide: true },
      ]}
    />
  );
}

export function JobActs({ of: job }: { of: Job }) {
  if (open(job))
    return (
      <Opens label={d.act.cancel} name={d.act.cancelOf(short(job.id))}>
        {(close) => <CancelJob job={job} onClose={close} />}
      </Opens>
    );
  if (job.status === "succeeded") return null;
  return (
    <Opens label={d.act.retry} name={d.act.retryOf(short(job.id))}>
      {(close) => <RetryJob job={job} onClose={close} />}
    </Opens>
  );
}

export function Payments({ rows, one }: { rows: Payment[]; one?: boolean }) {
  return (
    <Table
      label={d.pages.payments}
      rows={rows}
      id={(payment) => payment.reference}
      columns={[
        { head: d.fields.payment, cell: (payment) => <code>{payment.reference}</code>, wide: true },
        ...who<Payment>(one),
        { head: d.fields.when, cell: (payment) => <When at={payment.created_at} /> },
        { head: d.fields.paid, cell: (payment) => sum(payment.amount_cents, payment.currency), number: true },
        { head: d.fields.returned, cell: (payment) => <Returned of={payment} />, number: true },
        { head: d.fields.credits, cell: (payment) => credits(payment.credits), number: true },
        { head: d.fields.taken, cell: (payment) => (payment.taken ? credits(payment.taken) : null), number: true },
        {
          head: d.fields.acts,
          wide: true,
          cell: (payment) => (
            <div className="actions">
              {payment.returned_cents < payment.amount_cents && (
                <Opens label={d.payments.refund} name={d.payments.refundOf(payment.reference)}>
                  {(close) => <RefundPayment payment={payment} onClose={close} />}
                </Opens>
              )}
              {payment.receipt_url && (
                <a href={payment.receipt_url} target="_blank" rel="noreferrer">
                  {d.payments.receipt}
                </a>
              )}
            </div>
          ),
        },
      ]}
    />
  );
}

export const sum = (cents: number, currency: string | null) => (currency ? money(cents, currency) : count(cents));

function Returned({ of: payment }: { of: Payment }) {
  if (!payment.returns.length) return payment.returned_cents ? sum(payment.returned_cents, payment.currency) : null;
  return (
    <ul>
      {payment.returns.map((back) => (
        <li key={back.id} className={back.undone ? "undone" : undefined}>
          {back.kind === "dispute" ? `${d.payments.dispute} ` : ""}
          {sum(back.cents, payment.currency)}
          {back.undone ? ` ${d.payments.undone}` : ""}
        </li>
      ))}
    </ul>
  );
}

export function Keys({ rows, user }: { rows: Key[]; user: User }) {
  return (
    <Table
      label={d.keys.title}
      rows={rows}
      id={(key) => key.id}
      columns={[
        { head: d.fields.key, cell: (key) => key.name, wide: true },
        { head: d.fields.id, cell: (key) => <code>fsk_{key.prefix}_…</code> },
        { head: d.fields.scopes, cell: (key) => key.scopes.join(", ") },
        { head: d.fields.since, cell: (key) => <When at={key.created_at} /> },
        { head: d.fields.used, cell: (key) => <When at={key.last_used_at} /> },
        {
          head: d.fields.acts,
          wide: true,
          cell: (key) =>
            key.revoked_at ? (
              <span className="tag">{d.keys.revoked}</span>
            ) : (
              <Opens label={d.act.revoke} name={d.act.revokeOf(key.name)}>
                {(close) => <RevokeKeys user={user} only={key} onClose={close} />}
              </Opens>
            ),
        },
      ]}
    />
  );
}

export function Actions({ rows }: { rows: Action[] }) {
  return (
    <Table
      label={d.pages.actions}
      rows={rows}
      id={(action) => action.id}
      columns={[
        { head: d.fields.when, cell: (action) => <When at={action.at} /> },
        { head: d.fields.did, cell: (action) => <span className="short">{action.action}</span> },
        { head: d.fields.target, cell: (action) => <Target of={action} /> },
        { head: d.fields.reason, cell: (action) => <span className="words">{action.reason}</span>, wide: true },
        { head: d.fields.details, cell: (action) => <Details of={action.details} />, wide: true },
        { head: d.fields.operator, cell: (action) => <span className="who">{action.actor}</span>, wide: true },
      ]}
    />
  );
}

function Target({ of: { target, user_id, action } }: { of: Action }) {
  if (target === user_id) return <UserLink id={target} />;
  if (action.endsWith("job")) return <JobLink id={target} />;
  return user_id ? <Link href={`/admin/users/${user_id}`} className="words">{target}</Link> : target;
}

/** What an act moved: `credits 5,000, reference ticket 17`. What its other columns say is left out. */
function Details({ of }: { of: Record<string, unknown> }) {
  const said = Object.entries(of).filter(([name, value]) => value !== null && !["id", "active", "created_at"].includes(name));
  return said.length > 0 && <span className="words">{said.map(([name, value]) => `${name.replaceAll("_", " ")} ${plain(value)}`).join(", ")}</span>;
}

function plain(value: unknown): string {
  if (typeof value === "number") return count(value);
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "string" && /^\d{4}-\d\d-\d\dT/.test(value) ? stamp(value) : String(value);
}
