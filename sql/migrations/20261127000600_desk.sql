-- What operators look at. None of it shows the text of a job, or a secret.

create function fishserve.account_json(p_profile public.profiles) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_profile) || jsonb_build_object('suspended_until',
    (select banned_until from auth.users where id = p_profile.id and banned_until > now()))
$$;

-- Users whose address has this in it, the newest first; all, where it is empty.
create function public.admin_users(p_search text default null, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.account_json(p) order by p.created_at desc), '[]') from (
    select * from public.profiles where coalesce(p_search, '') = '' or position(lower(btrim(p_search)) in lower(email)) > 0
    order by created_at desc limit greatest(0, least(coalesce(p_limit, 50), 1000))
  ) p
$$;

-- The one user who has this id, address, customer's id at Stripe, API key (its prefix), job or payment; null where there is none.
create function public.admin_user(p_who text) returns jsonb
language sql stable security definer set search_path = '' as $$
  with wanted as (select btrim(p_who) as who)
  select fishserve.account_json(p) || jsonb_build_object(
    'jobs', (select coalesce(jsonb_object_agg(status, count), '{}') from (
      select status, count(*) from public.jobs where user_id = p.id group by status) j),
    'reserved', (select coalesce(sum(reserved), 0) from public.jobs where user_id = p.id and finished_at is null),
    'voices', (select count(*) from public.cloned_voices where user_id = p.id and status = 'ready'))
  from public.profiles p where p.id = (
    select id from (
      select id, 1 as rank from public.profiles, wanted where id::text = lower(who)
      union all select id, 2 from public.profiles, wanted where lower(email) = lower(who)
      union all select id, 3 from public.profiles, wanted where stripe_customer = who
      union all select user_id, 4 from public.api_keys, wanted where prefix = split_part(regexp_replace(who, '^fsk_', ''), '_', 1)
      union all select user_id, 5 from public.jobs, wanted where id::text = lower(who)
      union all select user_id, 6 from public.payments, wanted where reference = who
    ) found where id is not null order by rank limit 1)
$$;

-- Entries of the ledger, of one user or of all, the newest first.
create function public.admin_ledger(p_user_id uuid default null, p_before bigint default null, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('email', p.email) order by t.id desc), '[]') from (
    select * from public.transactions where (p_user_id is null or user_id = p_user_id) and (p_before is null or id < p_before)
    order by id desc limit greatest(0, least(coalesce(p_limit, 50), 1000))
  ) t join public.profiles p on p.id = t.user_id
$$;

create function fishserve.job_at_desk(p_job public.jobs) returns jsonb
language sql stable set search_path = '' as $$
  select fishserve.job_json(p_job) - 'text' || jsonb_build_object('email', (select email from public.profiles where id = p_job.user_id))
$$;

create index jobs_by_time on public.jobs (created_at);

create function public.admin_jobs(p_user_id uuid default null, p_status text default null, p_before timestamptz default null, p_limit integer default 50)
returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.job_at_desk(j) order by j.created_at desc), '[]') from (
    select * from public.jobs
    where (p_user_id is null or user_id = p_user_id) and (p_status is null or status = p_status) and (p_before is null or created_at < p_before)
    order by created_at desc limit greatest(0, least(coalesce(p_limit, 50), 1000))
  ) j
$$;

-- A job with its entries of the ledger: {job, ledger}.
create function public.admin_job(p_job_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  select * into v_job from public.jobs where id = p_job_id;
  if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
  return jsonb_build_object('job', fishserve.job_at_desk(v_job),
    'ledger', (select coalesce(jsonb_agg(to_jsonb(t) order by t.id), '[]') from public.transactions t where t.job_id = p_job_id));
end $$;

create function fishserve.payment_at_desk(p_payment public.payments) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_payment) - 'stated_cents' || jsonb_build_object(
    'email', (select email from public.profiles where id = p_payment.user_id),
    'returned_cents', fishserve.cents_returned(p_payment), 'owed', fishserve.credits_owed(p_payment),
    'refunded_cents', (select greatest(coalesce(sum(cents) filter (where not undone), 0), p_payment.stated_cents - coalesce(sum(cents) filter (where undone), 0))
      from public.payment_returns where reference = p_payment.reference and kind = 'refund'),
    'returns', (select coalesce(jsonb_agg(to_jsonb(r) - 'reference' order by r.created_at, r.id), '[]')
      from public.payment_returns r where r.reference = p_payment.reference))
$$;

-- Payments, of one user or of all, the newest first, each with the refunds and disputes of it.
create function public.admin_payments(p_user_id uuid default null, p_before timestamptz default null, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.payment_at_desk(p) order by p.created_at desc), '[]') from (
    select * from public.payments
    where user_id is not null and (p_user_id is null or user_id = p_user_id) and (p_before is null or created_at < p_before)
    order by created_at desc limit greatest(0, least(coalesce(p_limit, 50), 1000))
  ) p
$$;

create function public.admin_keys(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(k) - 'hash' order by k.created_at desc), '[]') from public.api_keys k where k.user_id = p_user_id
$$;

-- Acts on one target, or on all that is one user's, or all, the newest first.
create function public.list_admin_actions(
  p_target text default null, p_user_id uuid default null, p_before bigint default null, p_limit integer default 50
) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(a) order by a.id desc), '[]') from (
    select * from public.admin_actions
    where (p_target is null or target = p_target) and (p_user_id is null or user_id = p_user_id) and (p_before is null or id < p_before)
    order by id desc limit greatest(0, least(coalesce(p_limit, 50), 1000))
  ) a
$$;

-- {waiting, running, oldest_seconds, lapsed, users}: how long the oldest waiting job has waited, how many jobs have lost their process, and the twenty
-- users with the most jobs.
create function public.admin_queue() returns jsonb
language sql stable security definer set search_path = '' as $$
  with open_jobs as (select * from public.jobs where status in ('queued', 'running'))
  select jsonb_build_object(
    'waiting', count(*) filter (where status = 'queued'),
    'running', count(*) filter (where status = 'running'),
    'oldest_seconds', coalesce(round(extract(epoch from now() - min(created_at) filter (where status = 'queued')), 1), 0),
    'lapsed', count(*) filter (where status = 'running' and lease_until < now()),
    'users', (select coalesce(jsonb_agg(to_jsonb(u) order by u.waiting + u.running desc, u.user_id), '[]') from (
      select o.user_id, p.email, count(*) filter (where o.status = 'queued') as waiting, count(*) filter (where o.status = 'running') as running,
        sum(o.reserved) as reserved
      from open_jobs o join public.profiles p on p.id = o.user_id group by o.user_id, p.email order by count(*) desc, o.user_id limit 20) u))
  from open_jobs
$$;

-- What became of the jobs that each backend ended in the last minutes, and what it speaks now. Jobs that never reached a backend are `none`'s.
create function public.admin_workers(p_minutes integer default 60) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(w) order by w.backend), '[]') from (
    select coalesce(backend, 'none') as backend, count(*) filter (where status = 'running') as running,
      count(*) filter (where status = 'running' and lease_until < now()) as lapsed,
      count(*) filter (where status = 'succeeded') as succeeded, count(*) filter (where status = 'failed') as failed,
      count(*) filter (where status = 'cancelled') as cancelled, count(*) filter (where status = 'expired') as expired,
      count(*) filter (where attempts > 1) as retried, coalesce(sum(seconds), 0) as audio_seconds,
      round(percentile_cont(0.5) within group (order by extract(epoch from finished_at - started_at))::numeric, 2) as median_seconds,
      max(finished_at) filter (where status = 'succeeded') as last_success
    from public.jobs
    where status = 'running' or finished_at > now() - make_interval(mins => greatest(1, least(coalesce(p_minutes, 60), 100000)))
      and created_at > now() - interval '1 day' - make_interval(mins => greatest(1, least(coalesce(p_minutes, 60), 100000))) -- by the index: none takes a day
    group by coalesce(backend, 'none')
  ) w
$$;

-- {prices, packs}: every price that ever was, the newest first, and all packs.
create function public.admin_prices() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('prices', (select coalesce(jsonb_agg(to_jsonb(p) order by p.id desc), '[]') from public.prices p),
    'packs', (select coalesce(jsonb_agg(to_jsonb(k) order by k.active desc, k.amount_cents), '[]') from public.packs k))
$$;

-- Money by day (UTC) and currency: {day, currency, payments, paid_cents, refunded_cents, disputed_cents, net_cents, credits}. A refund or dispute counts on
-- the day it was booked, one that was undone nowhere; what Stripe stated as a sum without naming the refunds counts on the day of the payment.
create function public.revenue_by_day(p_since date, p_until date) returns jsonb
language sql stable security definer set search_path = '' as $$
  with moves as (
    select (p.created_at at time zone 'utc')::date as day, p.currency, 1 as payments, p.amount_cents as paid, 0::bigint as refunded, 0::bigint as disputed,
      p.credits
    from public.payments p where p.user_id is not null
    union all
    select (r.created_at at time zone 'utc')::date, p.currency, 0, 0, case r.kind when 'refund' then r.cents else 0 end,
      case r.kind when 'dispute' then r.cents else 0 end, 0
    from public.payment_returns r join public.payments p on p.reference = r.reference and p.user_id is not null where not r.undone
    union all
    select (p.created_at at time zone 'utc')::date, p.currency, 0, 0, p.stated_cents - n.named, 0, 0
    from public.payments p
    cross join lateral (select coalesce(sum(cents), 0) as named from public.payment_returns r where r.reference = p.reference and r.kind = 'refund') n
    where p.user_id is not null and p.stated_cents > n.named
  )
  select coalesce(jsonb_agg(to_jsonb(d) order by d.day, d.currency), '[]') from (
    select day, coalesce(currency, '') as currency, sum(payments) as payments, sum(paid) as paid_cents, sum(refunded) as refunded_cents,
      sum(disputed) as disputed_cents, sum(paid - refunded - disputed) as net_cents, sum(credits) as credits
    from moves where day between p_since and p_until group by day, currency
  ) d
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.admin_users, public.admin_user, public.admin_ledger, public.admin_jobs, public.admin_job, public.admin_payments,
  public.admin_keys, public.list_admin_actions, public.admin_queue, public.admin_workers, public.admin_prices, public.revenue_by_day
  from public, anon, authenticated;
grant execute on function public.admin_users, public.admin_user, public.admin_ledger, public.admin_jobs, public.admin_job, public.admin_payments,
  public.admin_keys, public.list_admin_actions, public.admin_queue, public.admin_workers, public.admin_prices, public.revenue_by_day to service_role;

insert into fishserve.migrations (name) values ('20261127000600_desk');
