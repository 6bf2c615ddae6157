-- Jobs cost less of the processor; what they cost in credits, and whose turn it is, stays as it was. A function in SQL that sets its search_path is parsed
-- and planned anew for each transaction that calls it; one in PL/pgSQL keeps its plans for as long as the connection lasts.

-- A claim looks for running jobs that their process left; it passed by all those that a queue of RunPod has.
create index jobs_left on public.jobs (created_at)
  where status = 'running' and (backend is null or backend = 'fishserve' or backend_id is null);

create or replace function fishserve.job_json(p_job public.jobs) returns jsonb
language plpgsql immutable set search_path = '' as $$
begin
  return to_jsonb(p_job) - '{token_hash,fingerprint,price_id,deleted_at,turn,made_seconds,heard_seconds}'::text[];
end $$;

create or replace function fishserve.voice_of_job(p_job public.jobs) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  if p_job.voice_id is null then return null; end if;
  return (select to_jsonb(v) from public.cloned_voices v where v.id = p_job.voice_id and v.status = 'ready');
end $$;

create or replace function fishserve.speed_of(p_options jsonb) returns numeric
language plpgsql immutable set search_path = '' as $$
begin
  return case when jsonb_typeof(p_options -> 'speed') = 'number' then (p_options ->> 'speed')::numeric else 1 end;
end $$;

create or replace function fishserve.estimated_seconds(p_letters numeric, p_silence numeric, p_speed numeric, p_price public.prices) returns numeric
language plpgsql immutable set search_path = '' as $$
begin
  return (1 + 1.25 * p_letters / p_price.characters_per_second + p_silence) / p_speed;
end $$;

create or replace function fishserve.credits(p_seconds numeric, p_price public.prices) returns bigint
language plpgsql immutable set search_path = '' as $$
begin
  return greatest(p_price.minimum, ceil(p_seconds * p_price.credits_per_second)::bigint);
end $$;

create or replace function fishserve.price_of(p_job public.jobs, p_seconds numeric) returns bigint
language plpgsql stable set search_path = '' as $$
begin
  return (select least(p_job.reserved, fishserve.credits(p_seconds * greatest(1, fishserve.speed_of(p_job.options)), p))
    from public.prices p where p.id = p_job.price_id);
end $$;

create or replace function fishserve.job_with_voice(p_job public.jobs) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  v_rate numeric := (select nullif(credits_per_second, 0) from public.prices where id = p_job.price_id);
begin
  return fishserve.job_json(p_job) || jsonb_build_object('voice', fishserve.voice_of_job(p_job),
    'budget_seconds', p_job.reserved / v_rate / greatest(1, fishserve.speed_of(p_job.options)));
end $$;

create or replace function fishserve.lease(p_job_id uuid, p_seconds numeric) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_job public.jobs;
begin
  update public.jobs set lease_until = now() + make_interval(secs => greatest(0, p_seconds)), attempts = attempts + 1 where id = p_job_id
    returning * into v_job;
  return fishserve.job_with_voice(v_job);
end $$;

create or replace function fishserve.move_credits(p_entry_id bigint, p_lot_id bigint, p_amount bigint) returns void
language plpgsql set search_path = '' as $$
begin
  update public.credit_lots set remaining = remaining + p_amount where id = p_lot_id;
  insert into public.lot_moves (entry_id, lot_id, amount) values (p_entry_id, p_lot_id, p_amount);
end $$;

create or replace function fishserve.count_usage(p_job public.jobs) returns void
language plpgsql set search_path = '' as $$
declare
  v_day date := (now() at time zone 'utc')::date;
begin
  insert into public.usage as u (user_id, day, jobs, characters, seconds, credits)
    values (p_job.user_id, v_day, 1, p_job.characters, p_job.seconds, p_job.charged)
    on conflict (user_id, day) do update set jobs = u.jobs + 1, characters = u.characters + excluded.characters,
      seconds = u.seconds + excluded.seconds, credits = u.credits + excluded.credits;
  if p_job.api_key_id is null then return; end if;
  insert into public.key_usage as u (key_id, day, jobs, characters, seconds, credits)
    values (p_job.api_key_id, v_day, 1, p_job.characters, p_job.seconds, p_job.charged)
    on conflict (key_id, day) do update set jobs = u.jobs + 1, characters = u.characters + excluded.characters,
      seconds = u.seconds + excluded.seconds, credits = u.credits + excluded.credits;
end $$;

create or replace function fishserve.tell(p_user_id uuid, p_event text, p_data jsonb) returns void
language plpgsql set search_path = '' as $$
begin
  insert into public.webhook_deliveries (endpoint_id, user_id, event, payload)
    select id, user_id, p_event, fishserve.payload(p_event, p_data) from public.webhook_endpoints
    where user_id = p_user_id and disabled_at is null and p_event = any (events);
end $$;

-- As before, but jobs are put into the answer once each: a JSON array that grows is copied whole for each element.
create or replace function public.claim_jobs(p_limit integer, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_limit integer := greatest(0, least(p_limit, 1000));
  v_job record;
  v_more boolean := true;
  v_full uuid[] := '{}'::uuid[]; -- users who have as many under way as they may
  v_all jsonb[] := '{}'::jsonb[];
begin
  if exists (select from public.plans p, public.settings s where coalesce(p.max_running, s.max_running) is not null) then
    v_full := array(
      select user_id from (
        select user_id from public.jobs where status = 'running'
        union all select user_id from public.jobs where status = 'queued' and lease_until is not null and lease_until >= now()
      ) under_way group by user_id having count(*) >= (fishserve.plan_of(user_id)).max_running);
  end if;
  for v_job in
    select id from public.jobs where status = 'running' and (lease_until is null or lease_until < now())
      and (backend is null or backend = 'fishserve' or backend_id is null)
    order by created_at limit v_limit for update skip locked
  loop
    v_all := array_append(v_all, fishserve.lease(v_job.id, p_lease_seconds));
  end loop;
  while v_more loop -- again when a user has come to the limit, in whose place others may have a turn
    v_more := false;
    for v_job in
      select id, user_id from public.jobs where status = 'queued' and (lease_until is null or lease_until < now()) and user_id <> all (v_full)
      order by turn, created_at limit v_limit - cardinality(v_all) for update skip locked
    loop
      if v_job.user_id = any (v_full) or not fishserve.may_run(v_job.user_id) then
        v_full := v_full || v_job.user_id;
        v_more := true;
      else
        v_all := array_append(v_all, fishserve.lease(v_job.id, p_lease_seconds));
      end if;
    end loop;
  end loop;
  return to_jsonb(v_all);
end $$;

-- As before, but it no longer looks at every job that is under way: none that is younger than so long is due, and an index knows their age.
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
      select id, user_id from public.jobs j where status in ('queued', 'running') and created_at < v_before
        and greatest(created_at, lease_until) < v_before and not fishserve.waits('reservation', j.id::text) order by created_at limit 100
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

insert into fishserve.migrations (name) values ('20261128000600_cheaper_jobs');
