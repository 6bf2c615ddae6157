-- Plans: what a user may do. A limit that is null is that of everybody: the table settings, 20 voices, and the API's own settings, which no plan
-- goes beyond. Every user has a plan; `free` is that of users without a subscription.

create table public.plans (
  id text primary key,
  name text not null,
  stripe_price text unique, -- price_..., null: not for sale. Another price is another plan: who subscribed to this one keeps it
  amount_cents bigint check (amount_cents > 0), -- of that price, for a period
  period text not null default 'month' check (period in ('day', 'week', 'month', 'year')), -- how often that is paid, to be shown
  currency text not null default 'usd' check (currency ~ '^[a-z]{3}$'),
  credits bigint not null default 0 check (credits >= 0), -- granted for each period that is paid
  grace_days integer default 3 check (grace_days >= 0), -- for so long they outlive their period; null: for ever
  weight numeric not null default 1 check (weight > 0), -- with 2, twice as much is spoken in the same time while users take turns
  max_running integer check (max_running > 0), -- jobs that are spoken at once
  max_waiting integer check (max_waiting > 0), -- jobs that wait
  per_minute integer check (per_minute > 0), -- new jobs in a minute
  max_characters integer check (max_characters > 0), -- of one text
  max_voices integer check (max_voices >= 0),
  result_days integer check (result_days > 0), -- how long a result is kept
  active boolean not null default true, -- for sale
  check ((stripe_price is null) = (amount_cents is null))
);
insert into public.plans (id, name) values ('free', 'Free');
insert into public.plans (id, name) select distinct plan, plan from public.profiles on conflict do nothing;
alter table public.profiles add foreign key (plan) references public.plans (id);
create index profiles_of_plan on public.profiles (plan);

alter table public.plans enable row level security;
revoke all on public.plans from anon, authenticated, service_role;
create policy "anyone reads what is for sale" on public.plans for select to anon, authenticated using (active);
create policy "the service reads and changes plans" on public.plans for all to service_role using (true) with check (true);
grant select on public.plans to anon, authenticated;
grant select, insert, update on public.plans to service_role;

-- A user's plan, with everybody's limits where it has none of its own; null is no limit.
create function fishserve.plan_of(p_user_id uuid) returns public.plans
language plpgsql stable set search_path = '' as $$
declare
  v_plan public.plans;
  v_settings public.settings;
begin
  select p.* into v_plan from public.profiles u join public.plans p on p.id = u.plan where u.id = p_user_id;
  select * into v_settings from public.settings;
  v_plan.max_running := coalesce(v_plan.max_running, v_settings.max_running);
  v_plan.max_waiting := coalesce(v_plan.max_waiting, v_settings.max_waiting);
  v_plan.max_voices := coalesce(v_plan.max_voices, 20);
  v_plan.result_days := coalesce(v_plan.result_days, v_settings.result_days);
  return v_plan;
end $$;

-- The plans for sale: [plan], the cheapest first.
create function public.list_plans() returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(p) order by p.amount_cents, p.id), '[]') from public.plans p where p.active and p.stripe_price is not null
$$;

-- Gives a user a plan, until a subscription begins, changes or ends: {plan}.
create function public.set_plan(p_user_id uuid, p_plan text) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform fishserve.lock_profile(p_user_id);
  if not exists (select from public.plans where id = p_plan) then
    raise sqlstate 'PT404' using message = format('there is no plan %s', coalesce(p_plan, 'null'));
  end if;
  update public.profiles set plan = p_plan where id = p_user_id;
  return jsonb_build_object('plan', p_plan);
end $$;

-- As before, within the limits of the plan. A job's turn is where the user's waiting jobs end, in credits divided by the weight of the plan.
create or replace function public.process_audio_request(
  p_user_id uuid, p_idempotency_key text, p_fingerprint text, p_text text, p_token_hash text,
  p_voice_id uuid default null, p_options jsonb default '{}', p_api_key_id uuid default null, p_letters numeric default null, p_silence numeric default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.open_profile(p_user_id);
  v_plan public.plans := fishserve.plan_of(p_user_id);
  v_options jsonb := coalesce(case jsonb_typeof(p_options) when 'string' then (p_options #>> '{}')::jsonb else p_options end, '{}'); -- @supabase/lite sends its text
  v_price public.prices;
  v_speed numeric;
  v_need bigint;
  v_turn numeric;
  v_balance bigint;
  v_job public.jobs;
begin
  if coalesce(char_length(p_idempotency_key), 0) not between 1 and 255 then
    raise sqlstate 'PT422' using message = 'an idempotency key has 1 to 255 characters';
  end if;
  if p_fingerprint is null or p_token_hash is null then raise sqlstate 'PT422' using message = 'a job needs a fingerprint and the hash of a token'; end if;
  if p_api_key_id is not null and not exists (select from public.api_keys where id = p_api_key_id and user_id = p_user_id and revoked_at is null) then
    raise sqlstate 'PT403' using message = 'this API key was revoked';
  end if;

  select * into v_job from public.jobs where user_id = p_user_id and idempotency_key = p_idempotency_key;
  if found and v_job.deleted_at is null and v_job.status in ('failed', 'cancelled', 'expired') and v_job.charged = 0 then
    update public.jobs set idempotency_key = 'free ' || id where id = v_job.id; -- no client's key has a space
  elsif found then
    if v_job.fingerprint <> p_fingerprint then
      raise sqlstate 'PT409' using message = 'this idempotency key was used for another request; use a new one';
    end if;
    if v_job.deleted_at is not null then
      raise sqlstate 'PT410' using message = 'the job of this idempotency key was deleted; use a new one';
    end if;
    return jsonb_build_object('job', fishserve.job_json(v_job), 'replayed', true, 'balance', v_profile.balance, 'voice', fishserve.voice_of_job(v_job));
  end if;

  if p_text is null or p_text !~ '\S' then raise sqlstate 'PT422' using message = 'there is no text to speak'; end if;
  if char_length(p_text) > 100000 then
    raise sqlstate 'PT422' using message = format('the text has %s characters; it may have 100000', char_length(p_text));
  end if;
  if char_length(p_text) > v_plan.max_characters then
    raise sqlstate 'PT422' using message = format('the text has %s characters; with the plan %s it may have %s', char_length(p_text), v_plan.name,
      v_plan.max_characters);
  end if;
  if jsonb_typeof(v_options) <> 'object' or octet_length(v_options::text) > 10000 then
    raise sqlstate 'PT422' using message = 'the options are an object of at most 10000 bytes';
  end if;
  v_speed := fishserve.speed_of(v_options);
  if v_speed not between 0.1 and 10 then raise sqlstate 'PT422' using message = format('the speed is %s; it may be 0.1 to 10', v_speed); end if;
  if p_letters < 0 or p_silence < 0 then raise sqlstate 'PT422' using message = 'a text has no fewer than 0 letters, and 0 seconds of silence'; end if;
  if p_voice_id is not null and not exists (select from public.cloned_voices where id = p_voice_id and user_id = p_user_id and status = 'ready') then
    raise sqlstate 'PT404' using message = format('you have no voice %s that is ready', p_voice_id);
  end if;

  if v_plan.max_waiting is not null
    and exists (select from public.jobs where user_id = p_user_id and status = 'queued' order by turn offset v_plan.max_waiting - 1 limit 1) then
    raise sqlstate 'PT429' using message = format('you have %s jobs waiting, the most an account may have; wait until some are spoken, or cancel them',
      v_plan.max_waiting);
  end if;
  if v_plan.per_minute is not null
    and (select count(*) from public.jobs where user_id = p_user_id and created_at > now() - interval '1 minute') >= v_plan.per_minute then
    raise sqlstate 'PT429' using message = format('with the plan %s you may ask for %s texts a minute; try again later in this minute', v_plan.name,
      v_plan.per_minute);
  end if;
  v_price := fishserve.active_price();
  v_need := fishserve.credits(fishserve.estimated_seconds(coalesce(p_letters, fishserve.letters(p_text)), coalesce(p_silence, 0), v_speed, v_price)
    * greatest(1, v_speed), v_price);
  if v_profile.balance < v_need then
    raise sqlstate 'PT402' using message = format('this needs %s credits; you have %s', v_need, v_profile.balance);
  end if;
  -- A job begins where the user's last waiting job would end, and never before the next job of all: who has waited for nothing has saved up nothing.
  v_turn := greatest(
    (select turn from public.jobs where status = 'queued' and (lease_until is null or lease_until < now()) order by turn, created_at limit 1),
    (select turn + reserved / v_plan.weight from public.jobs where user_id = p_user_id and status = 'queued' order by turn desc limit 1), 0);
  insert into public.jobs (user_id, api_key_id, idempotency_key, fingerprint, text, voice_id, options, characters, price_id, reserved, token_hash, turn)
    values (p_user_id, p_api_key_id, p_idempotency_key, p_fingerprint, p_text, p_voice_id, v_options, char_length(p_text), v_price.id, v_need, p_token_hash,
      v_turn)
    returning * into v_job;
  v_balance := fishserve.post(p_user_id, 'reserve', -v_need, v_job.id, v_job.id::text);
  return jsonb_build_object('job', fishserve.job_json(v_job), 'replayed', false, 'balance', v_balance, 'voice', fishserve.voice_of_job(v_job));
end $$;

create or replace function fishserve.may_run(p_user_id uuid) returns boolean
language plpgsql set search_path = '' as $$
declare
  v_max integer := (fishserve.plan_of(p_user_id)).max_running;
begin
  if v_max is null then return true; end if;
  if not pg_try_advisory_xact_lock(hashtextextended(p_user_id::text, 0)) then return false; end if;
  return (select count(*) from public.jobs where user_id = p_user_id and status = 'running')
    + (select count(*) from public.jobs where user_id = p_user_id and status = 'queued' and lease_until is not null and lease_until >= now()) < v_max;
end $$;

create or replace function public.claim_jobs(p_limit integer, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_limit integer := greatest(0, least(p_limit, 1000));
  v_job record;
  v_more boolean := true;
  v_full uuid[] := '{}'::uuid[]; -- users who have as many under way as they may
  v_all jsonb := '[]'::jsonb;
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
    v_all := v_all || jsonb_build_array(fishserve.lease(v_job.id, p_lease_seconds));
  end loop;
  while v_more loop -- again when a user has come to the limit, in whose place others may have a turn
    v_more := false;
    for v_job in
      select id, user_id from public.jobs where status = 'queued' and (lease_until is null or lease_until < now()) and user_id <> all (v_full)
      order by turn, created_at limit v_limit - jsonb_array_length(v_all) for update skip locked
    loop
      if v_job.user_id = any (v_full) or not fishserve.may_run(v_job.user_id) then
        v_full := v_full || v_job.user_id;
        v_more := true;
      else
        v_all := v_all || jsonb_build_array(fishserve.lease(v_job.id, p_lease_seconds));
      end if;
    end loop;
  end loop;
  return v_all;
end $$;

create or replace function public.settle_job(
  p_job_id uuid, p_seconds numeric, p_frames bigint, p_bytes bigint, p_sha256 text, p_object_key text, p_partial boolean default false
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs := fishserve.lock_job(p_job_id);
  v_balance bigint;
begin
  if v_job.status not in ('queued', 'running') then
    if p_object_key is distinct from v_job.object_key then perform fishserve.give_up_object(p_object_key); end if; -- too late: nobody will ask for it
    return jsonb_build_object('job', fishserve.job_json(v_job), 'balance', fishserve.balance_of(v_job.user_id), 'changed', false);
  end if;
  if p_seconds is null or not p_seconds between 0 and 1000000 then
    raise sqlstate 'PT422' using message = format('audio of %s seconds cannot be settled', coalesce(p_seconds::text, 'unknown'));
  end if;
  update public.jobs set status = 'succeeded', charged = fishserve.price_of(v_job, greatest(p_seconds, heard_seconds)), seconds = p_seconds, frames = p_frames,
    bytes = p_bytes, sha256 = p_sha256, object_key = p_object_key, partial = coalesce(p_partial, false), error = null, lease_until = null,
    finished_at = now(), expires_at = now() + make_interval(days => (fishserve.plan_of(v_job.user_id)).result_days)
    where id = p_job_id returning * into v_job;
  v_balance := fishserve.post(v_job.user_id, 'settle', v_job.reserved - v_job.charged, v_job.id, v_job.id::text);
  perform fishserve.count_usage(v_job);
  return jsonb_build_object('job', fishserve.job_json(v_job), 'balance', v_balance, 'changed', true);
end $$;

create or replace function public.create_voice(p_user_id uuid, p_name text, p_transcript text, p_content_type text, p_bytes bigint) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_name text := btrim(p_name);
  v_max integer;
  v_id uuid := gen_random_uuid();
  v_voice public.cloned_voices;
begin
  perform fishserve.open_profile(p_user_id);
  if coalesce(char_length(v_name), 0) not between 1 and 100 then raise sqlstate 'PT422' using message = 'a voice needs a name of 1 to 100 characters'; end if;
  if char_length(p_transcript) > 2000 then
    raise sqlstate 'PT422' using message = format('the transcript has %s characters; it may have 2000', char_length(p_transcript));
  end if;
  if p_content_type is null or p_bytes is null or p_bytes <= 0 then raise sqlstate 'PT422' using message = 'a voice needs the type and size of its clip'; end if;
  v_max := (fishserve.plan_of(p_user_id)).max_voices;
  perform fishserve.erase_voice(id) from public.cloned_voices -- never uploaded, or refused a while ago
    where user_id = p_user_id and (status = 'pending' and created_at < now() - interval '1 hour' or status = 'refused' and created_at < now() - interval '1 day');
  if (select count(*) from public.cloned_voices where user_id = p_user_id and status in ('pending', 'ready')) >= v_max then
    raise sqlstate 'PT409' using message = format('with your plan you may have %s voices, and you have as many; delete one first', v_max);
  end if;
  insert into public.cloned_voices (id, user_id, name, transcript, object_key, content_type, bytes)
    values (v_id, p_user_id, v_name, coalesce(p_transcript, ''), format('voices/%s/%s', p_user_id, v_id), p_content_type, p_bytes)
    on conflict (user_id, lower(name)) where status in ('pending', 'ready') do nothing returning * into v_voice;
  if not found then raise sqlstate 'PT409' using message = 'you have a voice of that name already'; end if;
  return jsonb_build_object('voice', to_jsonb(v_voice));
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.list_plans, public.set_plan from public, anon, authenticated;
grant execute on function public.list_plans, public.set_plan to service_role;

insert into fishserve.migrations (name) values ('20261127000100_plans');
