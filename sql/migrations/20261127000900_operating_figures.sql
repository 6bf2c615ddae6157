-- What an operator watches: how much waits and for how long, and the money.

-- {queued, running, oldest_queued_seconds, oldest_running_seconds, deletions, credits, money: [{currency, paid, returned}]}: jobs and the age of the oldest,
-- what is still to be deleted elsewhere, credits that users have, and money in the currency's smallest unit, where a payment returns no more than it had.
create function public.operating_figures() returns jsonb
language sql stable security definer set search_path = '' as $$
  with unfinished as (
    select count(*) filter (where status = 'queued') as queued, count(*) filter (where status = 'running') as running,
      extract(epoch from now() - min(created_at) filter (where status = 'queued')) as oldest_queued,
      extract(epoch from now() - min(created_at) filter (where status = 'running')) as oldest_running
    from public.jobs where status in ('queued', 'running')
  ), returned as ( -- as fishserve.credits_owed counts it
    select p.reference, p.currency, p.amount_cents, least(p.amount_cents,
      greatest(coalesce(sum(r.cents) filter (where r.kind = 'refund' and not r.undone), 0),
        p.stated_cents - coalesce(sum(r.cents) filter (where r.kind = 'refund' and r.undone), 0))
      + coalesce(sum(r.cents) filter (where r.kind = 'dispute' and not r.undone), 0)) as cents
    from public.payments p left join public.payment_returns r on r.reference = p.reference where p.amount_cents is not null group by p.reference
  ), money as (
    select coalesce(currency, 'unknown') as currency, sum(amount_cents)::bigint as paid, sum(cents)::bigint as returned from returned group by 1
  )
  select jsonb_build_object('queued', u.queued, 'running', u.running, 'oldest_queued_seconds', coalesce(u.oldest_queued, 0),
    'oldest_running_seconds', coalesce(u.oldest_running, 0), 'deletions', (select count(*) from public.deleted_objects where due_at <= now()),
    'credits', (select coalesce(sum(balance), 0) from public.profiles where closed_at is null),
    'money', (select coalesce(jsonb_agg(to_jsonb(m) order by m.currency), '[]') from money m))
  from unfinished u
$$;

revoke execute on function public.operating_figures from public, anon, authenticated;
grant execute on function public.operating_figures to service_role;

insert into fishserve.migrations (name) values ('20261127000900_operating_figures');
