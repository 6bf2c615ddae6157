-- What `fishserve saas audit` compares, and the report on credits that are paid for and not spent yet.

-- What of the payments does not add up: [{reference, wrong, expected, found}], where `wrong` is `entry` (the ledger's entry of the purchase is not its
-- credits), `taken` (as many credits were not taken back as of the money) or `refund` (an operator's refund of an hour ago has no outcome).
create function public.audit_payments() returns jsonb
language sql stable security definer set search_path = '' as $$
  with wrong as (
    select p.reference, 'entry' as wrong, p.credits as expected, coalesce(t.amount, 0) as found
    from public.payments p left join public.transactions t on t.user_id = p.user_id
      and (t.kind, t.reference) in (('purchase', p.reference), ('grant', to_jsonb(p) ->> 'invoice')) -- one that paid an invoice brought that one's credits
    where p.user_id is not null and t.amount is distinct from p.credits
    union all
    select p.reference, 'taken', fishserve.credits_owed(p), p.taken from public.payments p
    where p.user_id is not null and fishserve.credits_owed(p) <> p.taken
    union all
    select a.target, 'refund', (a.details ->> 'cents')::bigint, 0 from public.admin_actions a
    where a.action = 'refund' and a.at < now() - interval '1 hour' and not fishserve.has_outcome(a)
  )
  select coalesce(jsonb_agg(to_jsonb(w) order by w.reference, w.wrong), '[]') from wrong w
$$;

-- The books' side of payments that Stripe lists.
create function public.payments_of(p_references text[]) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.payment_at_desk(p)), '[]') from public.payments p where p.reference = any (p_references) and p.user_id is not null
$$;

-- Keys of objects that the bucket has or is to have, in the order of their bytes, after one: [{key, needed}]. Those that wait to be deleted, or for their
-- upload, are not needed.
create function public.known_objects(p_after text default '', p_limit integer default 1000) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(o) order by o.key collate "C"), '[]') from (
    select key, bool_or(needed) as needed from (
      (select object_key collate "C" as key, true as needed from public.jobs where object_key collate "C" > p_after
        order by 1 limit greatest(1, least(p_limit, 1000)))
      union all
      (select object_key collate "C", status = 'ready' from public.cloned_voices where status in ('pending', 'ready') and object_key collate "C" > p_after
        order by 1 limit greatest(1, least(p_limit, 1000)))
      union all
      (select key collate "C", false from public.deleted_objects where key collate "C" > p_after order by 1 limit greatest(1, least(p_limit, 1000)))
    ) k group by key order by key collate "C" limit greatest(1, least(p_limit, 1000))
  ) o
$$;

-- {known, needed}: the same of one object.
create function public.known_object(p_key text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'known', exists (select from public.jobs where object_key = p_key) or exists (select from public.deleted_objects where key = p_key)
      or exists (select from public.cloned_voices where object_key = p_key and status in ('pending', 'ready')),
    'needed', exists (select from public.jobs where object_key = p_key) or exists (select from public.cloned_voices where object_key = p_key and status = 'ready'))
$$;
create index jobs_by_object on public.jobs ((object_key collate "C")) where object_key is not null;
create index cloned_voices_by_object on public.cloned_voices ((object_key collate "C"));

-- Credits that users still have, by user, in the order of their ids after one: {user_id, email, balance, reserved, debt, bought, given, spent, taken}. Of each
-- user the last four, in the sum of the ledger, are balance + reserved. Users without any are left out.
create function public.outstanding_credits(p_after uuid default null, p_limit integer default 1000) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(c) order by c.user_id), '[]') from (
    select p.id as user_id, p.email, p.balance, coalesce(j.reserved, 0) as reserved, p.debt,
      coalesce(t.bought, 0) as bought, coalesce(t.given, 0) as given, coalesce(t.spent, 0) - coalesce(j.reserved, 0) as spent, coalesce(t.taken, 0) as taken
    from public.profiles p
    left join lateral (select sum(reserved) as reserved from public.jobs where user_id = p.id and finished_at is null) j on true
    left join lateral (
      select sum(amount) filter (where kind = 'purchase') as bought, sum(amount) filter (where kind = 'grant') as given,
        -sum(amount) filter (where job_id is not null) as spent, -sum(amount) filter (where job_id is null and kind not in ('purchase', 'grant')) as taken
      from public.transactions where user_id = p.id) t on true
    where (p.balance > 0 or p.debt > 0 or j.reserved > 0) and (p_after is null or p.id > p_after)
    order by p.id limit greatest(1, least(coalesce(p_limit, 1000), 1000))
  ) c
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.audit_payments, public.payments_of, public.known_objects, public.known_object, public.outstanding_credits
  from public, anon, authenticated;
grant execute on function public.audit_payments, public.payments_of, public.known_objects, public.known_object, public.outstanding_credits to service_role;

insert into fishserve.migrations (name) values ('20261127000700_books');
