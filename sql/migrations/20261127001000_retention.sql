-- How long texts are kept, what a user may take along, and what is to be forgotten at Stripe.

alter table public.settings add column text_days integer default 365 check (text_days > 0); -- how long the text of a job that is over is kept; null: until its user deletes it
create index jobs_with_text on public.jobs (finished_at) where text is not null and finished_at is not null;

-- Texts that have been kept long enough: {expired}, at most 1000. The job stays in the history without its text.
create function public.expire_texts() returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.jobs where text is not null and finished_at < now() - make_interval(days => (select text_days from public.settings))
    order by finished_at limit 1000 for update skip locked
  ), expired as (
    update public.jobs j set text = null, error = null from due where j.id = due.id returning 1
  )
  select jsonb_build_object('expired', count(*)) from expired
$$;

-- Customers of closed accounts, who must go from Stripe. A row goes when Stripe has deleted the customer.
create table public.deleted_customers (
  customer text primary key,
  tried_at timestamptz,
  created_at timestamptz not null default now()
);
create index deleted_customers_due on public.deleted_customers (tried_at nulls first);
alter table public.deleted_customers enable row level security;
revoke all on public.deleted_customers from anon, authenticated, service_role;
create policy "the service reads" on public.deleted_customers for select to service_role using (true);
grant select on public.deleted_customers to service_role;

create function fishserve.give_up_customer() returns trigger
language plpgsql set search_path = '' as $$
begin
  insert into public.deleted_customers (customer) values (old.stripe_customer) on conflict do nothing;
  return null;
end $$;
create trigger give_up_customer after update of stripe_customer on public.profiles for each row
  when (old.stripe_customer is not null and new.stripe_customer is null and new.closed_at is not null) execute function fishserve.give_up_customer();

-- Customers to delete at Stripe now; those tried longest ago first.
create function public.customers_to_delete(p_limit integer default 100) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select customer from public.deleted_customers order by tried_at nulls first limit greatest(0, least(p_limit, 1000)) for update skip locked
  ), tried as (
    update public.deleted_customers c set tried_at = now() from due where c.customer = due.customer returning c.customer
  )
  select coalesce(jsonb_agg(customer), '[]') from tried
$$;

create function public.customer_deleted(p_customer text) returns jsonb
language sql security definer set search_path = '' as $$
  with gone as (delete from public.deleted_customers where customer = p_customer)
  select jsonb_build_object('customer', p_customer)
$$;

-- Which tables hold rows of users: all with a user's id but the operators' own notes, the profile, and what went back of the user's payments.
create function public.export_tables() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_agg(c.relname order by c.relname) from pg_catalog.pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname <> 'admin_actions' and (c.relname in ('profiles', 'payment_returns') or exists (
    select from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = 'user_id' and not a.attisdropped))
$$;

-- A user's rows of one of those tables, a page of them, without secrets and keys of objects: [row]. A job says whether its audio is kept; a voice that
-- is ready has the key of its clip.
create function public.export_rows(p_user_id uuid, p_table text, p_offset bigint default 0, p_limit integer default 500) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_order text;
  v_rows jsonb;
begin
  if not coalesce(public.export_tables() ? p_table, false) then raise sqlstate 'PT404' using message = format('no table %s holds rows of users', p_table); end if;
  select string_agg(format('r.%I', a.attname), ', ' order by array_position(i.indkey::smallint[], a.attnum)) into v_order
  from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
  where i.indrelid = format('public.%I', p_table)::regclass and i.indisprimary;
  execute format(
    'select coalesce(jsonb_agg(to_jsonb(r) order by %1$s), ''[]'') from (select * from public.%2$I r where %3$s order by %1$s offset $2 limit $3) r',
    case p_table when 'jobs' then 'r.created_at, r.id' else coalesce(v_order, 'r.ctid') end, p_table,
    case p_table when 'profiles' then 'id = $1'
      when 'payment_returns' then 'reference in (select p.reference from public.payments p where p.user_id = $1)' else 'user_id = $1' end
  ) into v_rows using p_user_id, greatest(0, p_offset), greatest(0, least(p_limit, 1000));
  return (
    select coalesce(jsonb_agg(row - array['hash', 'token_hash', 'fingerprint', 'turn', 'object_key'] || case
      when p_table = 'jobs' then jsonb_build_object('audio_kept', row ->> 'object_key' is not null)
      when p_table = 'cloned_voices' and row ->> 'status' = 'ready' then jsonb_build_object('object_key', row ->> 'object_key') else '{}' end order by n), '[]')
    from jsonb_array_elements(v_rows) with ordinality e(row, n));
end $$;

-- As before, and the customers.
create or replace function public.operating_figures() returns jsonb
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
    'oldest_running_seconds', coalesce(u.oldest_running, 0), 'deletions', (select count(*) from public.deleted_objects where due_at <= now())
      + (select count(*) from public.deleted_customers),
    'credits', (select coalesce(sum(balance), 0) from public.profiles where closed_at is null),
    'money', (select coalesce(jsonb_agg(to_jsonb(m) order by m.currency), '[]') from money m))
  from unfinished u
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.expire_texts, public.customers_to_delete, public.customer_deleted, public.export_tables, public.export_rows
  from public, anon, authenticated;
grant execute on function public.expire_texts, public.customers_to_delete, public.customer_deleted, public.export_tables, public.export_rows to service_role;

insert into fishserve.migrations (name) values ('20261127001000_retention');
