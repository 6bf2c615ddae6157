-- Work on a list goes on past an item that fails: that one is put off, for longer each time, and counted until it succeeds.

create table fishserve.put_off (
  kind text not null check (kind in ('customer', 'object', 'reservation', 'credits')),
  item text not null, -- a customer at Stripe, an object's key, a job, a user
  failures integer not null default 1,
  due_at timestamptz not null,
  error text, -- a type of error or an SQLSTATE, never words: they may quote a user
  primary key (kind, item)
);
alter table fishserve.put_off enable row level security;
create policy "the owner alone" on fishserve.put_off for select using (false);
revoke all on fishserve.put_off from public, anon, authenticated, service_role;

create function fishserve.waits(p_kind text, p_item text) returns boolean
language sql stable set search_path = '' as $$
  select exists (select from fishserve.put_off where kind = p_kind and item = p_item and due_at > now())
$$;

-- {failures, seconds}: how often it failed, and when it is tried again: after 30 s, and twice as long each time, up to 6 hours.
create function public.put_off(p_kind text, p_item text, p_error text default null) returns jsonb
language sql security definer set search_path = '' as $$
  insert into fishserve.put_off as p (kind, item, due_at, error) values (p_kind, p_item, now() + interval '30 seconds', left(p_error, 100))
  on conflict (kind, item) do update set failures = p.failures + 1, error = excluded.error,
    due_at = now() + least(interval '6 hours', interval '30 seconds' * 2 ^ least(p.failures, 20))
  returning jsonb_build_object('failures', failures, 'seconds', extract(epoch from due_at - now()))
$$;

-- [{kind, items, failures}]: how many items wait for another try, and how often the worst of them has failed.
create function public.put_off_figures() returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(f) order by f.kind), '[]') from (
    select kind, count(*) as items, max(failures) as failures from fishserve.put_off group by kind
  ) f
$$;

create function fishserve.no_longer_put_off() returns trigger
language plpgsql set search_path = '' as $$
begin
  delete from fishserve.put_off where kind = tg_argv[0] and item = to_jsonb(old) ->> tg_argv[1];
  return null;
end $$;
create trigger no_longer_put_off after delete on public.deleted_objects for each row execute function fishserve.no_longer_put_off('object', 'key');
create trigger no_longer_put_off after delete on public.deleted_customers for each row
  execute function fishserve.no_longer_put_off('customer', 'customer');

create or replace function public.objects_to_delete(p_limit integer default 100) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select key from public.deleted_objects o where due_at <= now() and not fishserve.waits('object', o.key)
    order by tried_at nulls first limit greatest(0, least(p_limit, 1000)) for update skip locked
  ), tried as (
    update public.deleted_objects o set tried_at = now() from due where o.key = due.key returning o.key
  )
  select coalesce(jsonb_agg(key), '[]') from tried
$$;

create or replace function public.customers_to_delete(p_limit integer default 100) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select customer from public.deleted_customers c where not fishserve.waits('customer', c.customer)
    order by tried_at nulls first limit greatest(0, least(p_limit, 1000)) for update skip locked
  ), tried as (
    update public.deleted_customers c set tried_at = now() from due where c.customer = due.customer returning c.customer
  )
  select coalesce(jsonb_agg(customer), '[]') from tried
$$;

-- As before, but a job that cannot be ended, or that another transaction keeps locked, holds up no other.
create or replace function public.expire_reservations(p_older_than_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' set lock_timeout = '500ms' as $$
declare
  v_id uuid;
  v_before timestamptz := now() - make_interval(secs => p_older_than_seconds);
  v_ended jsonb;
  v_all jsonb := '[]'::jsonb;
begin
  delete from fishserve.put_off p where kind = 'reservation' -- those that ended in another way
    and not exists (select from public.jobs where id = p.item::uuid and status in ('queued', 'running'));
  for v_id in -- by user: two sweepers meet the profiles in one order
    select id from (
      select id, user_id from public.jobs j where status in ('queued', 'running') and greatest(created_at, lease_until) < v_before
        and not fishserve.waits('reservation', j.id::text) order by created_at limit 100
    ) old
    order by user_id, id
  loop
    begin
      perform fishserve.lock_job(v_id);
      continue when not exists (
        select from public.jobs where id = v_id and status in ('queued', 'running') and greatest(created_at, lease_until) < v_before);
      v_ended := public.refund_job(v_id, 'expired', 'nobody finished it in time; the credits were returned');
      v_all := v_all || jsonb_build_array(v_ended -> 'job');
    exception
      when serialization_failure or deadlock_detected then raise; -- the whole call is tried again
      when others then
        raise warning 'the reservation of job % cannot be ended: %', v_id, sqlstate;
        perform public.put_off('reservation', v_id::text, sqlstate);
    end;
  end loop;
  return v_all;
end $$;

-- As before, but a user whose credits cannot be taken holds up no other.
create or replace function public.expire_credits(p_limit integer default 100) returns jsonb
language plpgsql security definer set search_path = '' set lock_timeout = '500ms' as $$
declare
  v_id uuid;
  v_users integer := 0;
begin
  delete from fishserve.put_off p where kind = 'credits'
    and not exists (select from public.credit_lots where user_id = p.item::uuid and remaining > 0 and expires_at <= now());
  for v_id in -- by user: two sweepers meet the profiles in one order
    select user_id from (
      select distinct user_id from public.credit_lots l where remaining > 0 and expires_at <= now() and not fishserve.waits('credits', l.user_id::text)
      limit greatest(0, least(p_limit, 1000))
    ) due order by user_id
  loop
    begin
      perform fishserve.lock_profile(v_id);
      v_users := v_users + 1;
    exception
      when serialization_failure or deadlock_detected then raise;
      when others then
        raise warning 'the credits of user % that are over cannot be taken: %', v_id, sqlstate;
        perform public.put_off('credits', v_id::text, sqlstate);
    end;
  end loop;
  return jsonb_build_object('users', v_users);
end $$;

-- As before, without those to skip: the jobs that a backend gave no answer about, which are asked about later.
drop function public.running_jobs;
create function public.running_jobs(p_limit integer default 100, p_skip text[] default '{}') returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.job_json(j) order by j.lease_until nulls first, j.created_at), '[]') from (
    select * from public.jobs where status = 'running' and id::text <> all (p_skip)
    order by lease_until nulls first, created_at limit greatest(0, least(p_limit, 1000))
  ) j
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.put_off, public.put_off_figures, public.running_jobs from public, anon, authenticated;
grant execute on function public.put_off, public.put_off_figures, public.running_jobs to service_role;

insert into fishserve.migrations (name) values ('20261128000500_put_off');
