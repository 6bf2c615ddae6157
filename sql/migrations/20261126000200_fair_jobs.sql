-- Jobs in turn by user, within limits a user; speech that ends where the money ends; and whatever a client has heard is paid for, however its job ends.

alter table public.settings
  add column max_running integer default 4 check (max_running > 0), -- jobs of a user that are spoken at once; null: no limit
  add column max_waiting integer default 1000 check (max_waiting > 0); -- jobs of a user that wait; null: no limit

alter table public.jobs
  add column turn numeric not null default 0, -- among the waiting jobs, the one with the least is next
  add column partial boolean not null default false, -- it ended before the end of its text
  add column made_seconds numeric not null default 0, -- what this attempt has made so far
  add column heard_seconds numeric not null default 0; -- the most that a client has heard of it, in any attempt
-- A job whose voice is deleted must not look like one that never named a voice.
alter table public.jobs drop constraint jobs_voice_id_fkey;
grant select (partial) on public.jobs to authenticated;
create index jobs_waiting on public.jobs (turn, created_at) include (user_id, lease_until) where status = 'queued';
create index jobs_waiting_of_user on public.jobs (user_id, turn) where status = 'queued';
create index jobs_claimed_of_user on public.jobs (user_id) where status = 'queued' and lease_until is not null;
create index jobs_running_of_user on public.jobs (user_id) where status = 'running';

create or replace function fishserve.job_json(p_job public.jobs) returns jsonb
language sql immutable set search_path = '' as $$
  select to_jsonb(p_job) - 'token_hash' - 'fingerprint' - 'price_id' - 'deleted_at' - 'turn' - 'made_seconds' - 'heard_seconds'
$$;

create function fishserve.speed_of(p_options jsonb) returns numeric
language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_options -> 'speed') = 'number' then (p_options ->> 'speed')::numeric else 1 end
$$;

-- What so many seconds of audio cost. Speech that is sped up costs what it would cost unsped: it has the same frames, and could be slowed down again.
create function fishserve.price_of(p_job public.jobs, p_seconds numeric) returns bigint
language sql stable set search_path = '' as $$
  select least(p_job.reserved, fishserve.credits(p_seconds * greatest(1, fishserve.speed_of(p_job.options)), p))
  from public.prices p where p.id = p_job.price_id
$$;

-- How many seconds of audio the reservation buys, null where a second costs nothing: no backend need make more.
create or replace function fishserve.job_with_voice(p_job public.jobs) returns jsonb
language sql stable set search_path = '' as $$
  select fishserve.job_json(p_job) || jsonb_build_object('voice', fishserve.voice_of_job(p_job), 'budget_seconds',
    p_job.reserved / nullif(p.credits_per_second, 0) / greatest(1, fishserve.speed_of(p_job.options)))
  from public.prices p where p.id = p_job.price_id
$$;

-- How long it takes to say so many letters, a quarter more than on average and a second for the silence around them, and then to be silent.
create function fishserve.estimated_seconds(p_letters numeric, p_silence numeric, p_speed numeric, p_price public.prices) returns numeric
language sql immutable set search_path = '' as $$
  select (1 + 1.25 * p_letters / p_price.characters_per_second + p_silence) / p_speed
$$;

-- A text's letters, where nobody has read it: a character of Chinese, Japanese or Korean takes as long as three.
create function fishserve.letters(p_text text) returns numeric
language sql immutable set search_path = '' as $$
  select char_length(p_text) + 2 * char_length(regexp_replace(p_text, '[^\u1100-\u11FF\u3040-\u30FF\u3400-\u9FFF\uAC00-\uD7AF]+', '', 'g'))
$$;

-- What a request to speak this would reserve: {credits, characters, seconds}. `letters` and `silence` are of the text as it is read out, numbers in
-- words; where they are null, the text as it is written is measured. Speed above 1 makes speech shorter, not cheaper.
drop function public.estimate_credits;
create function public.estimate_credits(p_text text, p_speed numeric default 1, p_letters numeric default null, p_silence numeric default 0) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_price public.prices := fishserve.active_price();
  v_speed numeric := coalesce(p_speed, 1);
  v_seconds numeric;
begin
  if v_speed not between 0.1 and 10 then raise sqlstate 'PT422' using message = format('the speed is %s; it may be 0.1 to 10', p_speed); end if;
  v_seconds := fishserve.estimated_seconds(coalesce(p_letters, fishserve.letters(coalesce(p_text, ''))), coalesce(p_silence, 0), v_speed, v_price);
  return jsonb_build_object('credits', fishserve.credits(v_seconds * greatest(1, v_speed), v_price), 'characters', char_length(coalesce(p_text, '')),
    'seconds', round(v_seconds, 1));
end $$;

-- Reserves the estimate and queues the job, or answers the job that the idempotency key made before: {job, replayed, balance, voice}.
-- The key of a job that ended without costing anything is free again. `letters` and `silence` are as in estimate_credits.
drop function public.process_audio_request;
create function public.process_audio_request(
  p_user_id uuid, p_idempotency_key text, p_fingerprint text, p_text text, p_token_hash text,
  p_voice_id uuid default null, p_options jsonb default '{}', p_api_key_id uuid default null, p_letters numeric default null, p_silence numeric default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.open_profile(p_user_id);
  v_options jsonb := coalesce(case jsonb_typeof(p_options) when 'string' then (p_options #>> '{}')::jsonb else p_options end, '{}'); -- @supabase/lite sends its text
  v_price public.prices;
  v_speed numeric;
  v_need bigint;
  v_max integer;
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
  if jsonb_typeof(v_options) <> 'object' or octet_length(v_options::text) > 10000 then
    raise sqlstate 'PT422' using message = 'the options are an object of at most 10000 bytes';
  end if;
  v_speed := fishserve.speed_of(v_options);
  if v_speed not between 0.1 and 10 then raise sqlstate 'PT422' using message = format('the speed is %s; it may be 0.1 to 10', v_speed); end if;
  if p_letters < 0 or p_silence < 0 then raise sqlstate 'PT422' using message = 'a text has no fewer than 0 letters, and 0 seconds of silence'; end if;
  if p_voice_id is not null and not exists (select from public.cloned_voices where id = p_voice_id and user_id = p_user_id and status = 'ready') then
    raise sqlstate 'PT404' using message = format('you have no voice %s that is ready', p_voice_id);
  end if;

  select max_waiting into v_max from public.settings;
  if v_max is not null and exists (select from public.jobs where user_id = p_user_id and status = 'queued' order by turn offset v_max - 1 limit 1) then
    raise sqlstate 'PT429' using message = format('you have %s jobs waiting, the most an account may have; wait until some are spoken, or cancel them', v_max);
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
    (select turn + reserved from public.jobs where user_id = p_user_id and status = 'queued' order by turn desc limit 1), 0);
  insert into public.jobs (user_id, api_key_id, idempotency_key, fingerprint, text, voice_id, options, characters, price_id, reserved, token_hash, turn)
    values (p_user_id, p_api_key_id, p_idempotency_key, p_fingerprint, p_text, p_voice_id, v_options, char_length(p_text), v_price.id, v_need, p_token_hash,
      v_turn)
    returning * into v_job;
  v_balance := fishserve.post(p_user_id, 'reserve', -v_need, v_job.id, v_job.id::text);
  return jsonb_build_object('job', fishserve.job_json(v_job), 'replayed', false, 'balance', v_balance, 'voice', fishserve.voice_of_job(v_job));
end $$;

-- Whether one more job of this user may be spoken now. One claim at a time looks at a user: another that comes meanwhile is told no.
create function fishserve.may_run(p_user_id uuid) returns boolean
language plpgsql set search_path = '' as $$
declare
  v_max integer;
begin
  select max_running into v_max from public.settings;
  if v_max is null then return true; end if;
  if not pg_try_advisory_xact_lock(hashtextextended(p_user_id::text, 0)) then return false; end if;
  return (select count(*) from public.jobs where user_id = p_user_id and status = 'running')
    + (select count(*) from public.jobs where user_id = p_user_id and status = 'queued' and lease_until is not null and lease_until >= now()) < v_max;
end $$;

create function fishserve.lease(p_job_id uuid, p_seconds numeric) returns jsonb
language sql set search_path = '' as $$
  update public.jobs j set lease_until = now() + make_interval(secs => greatest(0, p_seconds)), attempts = attempts + 1 where id = p_job_id
  returning fishserve.job_with_voice(j)
$$;

-- Jobs to hand to a backend, each with its voice and budget: those whose process died, then those that wait, in turn by user and as many of each as the
-- user may have running.
create or replace function public.claim_jobs(p_limit integer, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_limit integer := greatest(0, least(p_limit, 1000));
  v_max integer;
  v_job record;
  v_more boolean := true;
  v_full uuid[] := '{}'::uuid[]; -- users who have as many under way as they may
  v_all jsonb := '[]'::jsonb;
begin
  select max_running into v_max from public.settings;
  if v_max is not null then
    v_full := array(
      select user_id from (
        select user_id from public.jobs where status = 'running'
        union all select user_id from public.jobs where status = 'queued' and lease_until is not null and lease_until >= now()
      ) under_way group by user_id having count(*) >= v_max);
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

-- The same for one job; null where another has it, it is over, or its user has as many running as may be.
create or replace function public.claim_job(p_job_id uuid, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  select * into v_job from public.jobs
    where id = p_job_id and status in ('queued', 'running') and (lease_until is null or lease_until < now())
      and (status = 'queued' or backend is null or backend = 'fishserve' or backend_id is null)
    for update skip locked;
  if not found or v_job.status = 'queued' and not fishserve.may_run(v_job.user_id) then return null; end if;
  return fishserve.lease(p_job_id, p_lease_seconds);
end $$;

create or replace function public.start_job(p_job_id uuid, p_backend text, p_backend_id text default null, p_heard boolean default false) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  update public.jobs set status = 'running', backend = p_backend, backend_id = p_backend_id, heard = p_heard, made_seconds = 0,
    started_at = coalesce(started_at, now())
    where id = p_job_id and status in ('queued', 'running') returning * into v_job;
  if not found then
    select * into v_job from public.jobs where id = p_job_id;
    if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
    raise sqlstate 'PT409' using message = format('the job is over: it %s', case v_job.status when 'cancelled' then 'was cancelled' else v_job.status end);
  end if;
  return fishserve.job_json(v_job);
end $$;

-- {renewed, status}: renewed is false when the job is over. `seconds`: the audio that this attempt has made so far.
drop function public.renew_lease;
create function public.renew_lease(p_job_id uuid, p_lease_seconds numeric, p_seconds numeric default 0) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_status text;
begin
  update public.jobs set lease_until = now() + make_interval(secs => p_lease_seconds), made_seconds = greatest(made_seconds, p_seconds),
    heard_seconds = case when heard then greatest(heard_seconds, p_seconds) else heard_seconds end
    where id = p_job_id and status in ('queued', 'running') returning status into v_status;
  if found then return jsonb_build_object('renewed', true, 'status', v_status); end if;
  select status into v_status from public.jobs where id = p_job_id;
  if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
  return jsonb_build_object('renewed', false, 'status', v_status);
end $$;

create function fishserve.count_usage(p_job public.jobs) returns void
language sql set search_path = '' as $$
  insert into public.usage as u (user_id, day, jobs, characters, seconds, credits)
    values (p_job.user_id, (now() at time zone 'utc')::date, 1, p_job.characters, p_job.seconds, p_job.charged)
    on conflict (user_id, day) do update set jobs = u.jobs + 1, characters = u.characters + excluded.characters,
      seconds = u.seconds + excluded.seconds, credits = u.credits + excluded.credits
$$;

-- The audio is in the bucket: charges its price and returns the rest. {job, balance, changed}; a job that is over stays as it was.
-- `partial`: the file ends before the text does.
drop function public.settle_job;
create function public.settle_job(
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
    finished_at = now(), expires_at = now() + make_interval(days => (select result_days from public.settings))
    where id = p_job_id returning * into v_job;
  v_balance := fishserve.post(v_job.user_id, 'settle', v_job.reserved - v_job.charged, v_job.id, v_job.id::text);
  perform fishserve.count_usage(v_job);
  return jsonb_build_object('job', fishserve.job_json(v_job), 'balance', v_balance, 'changed', true);
end $$;

-- Ends a locked job without a file: charges so many seconds of audio, or returns all that was reserved where there were none.
create function fishserve.end_job(p_job public.jobs, p_status text, p_error text, p_seconds numeric) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_job public.jobs;
  v_made boolean := p_seconds > 0;
  v_balance bigint;
begin
  if p_job.status not in ('queued', 'running') then
    return jsonb_build_object('job', fishserve.job_json(p_job), 'balance', fishserve.balance_of(p_job.user_id), 'changed', false);
  end if;
  update public.jobs set status = p_status, error = left(p_error, 500), lease_until = null, finished_at = now(), partial = v_made,
    charged = case when v_made then fishserve.price_of(p_job, p_seconds) else 0 end, seconds = case when v_made then p_seconds end
    where id = p_job.id returning * into v_job;
  v_balance := fishserve.post(v_job.user_id, case when v_made then 'settle' else 'refund' end, v_job.reserved - v_job.charged, v_job.id, v_job.id::text);
  if v_made then perform fishserve.count_usage(v_job); end if;
  return jsonb_build_object('job', fishserve.job_json(v_job), 'balance', v_balance, 'changed', true);
end $$;

-- No file will come: returns all that was reserved, less the price of what a client has heard. {job, balance, changed}; a job that is over stays as it was.
-- `seconds`: what the client has heard by now.
drop function public.refund_job;
create function public.refund_job(p_job_id uuid, p_status text, p_error text default null, p_seconds numeric default 0) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs := fishserve.lock_job(p_job_id);
begin
  if p_status is null or p_status not in ('failed', 'cancelled', 'expired') then
    raise sqlstate 'PT422' using message = format('a job is refunded as failed, cancelled or expired, not as %s', coalesce(p_status, 'null'));
  end if;
  return fishserve.end_job(v_job, p_status, p_error, greatest(v_job.heard_seconds, p_seconds));
end $$;

-- What its user calls off costs what was made of it, as far as the process that speaks it has told; what a dead process made is lost, and costs nothing
-- unless it was heard. A job that a client is hearing ends when that client leaves. `seconds`: what the caller knows to be made.
drop function public.cancel_job;
create function public.cancel_job(p_user_id uuid, p_job_id uuid, p_seconds numeric default 0) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  if not exists (select from public.jobs where id = p_job_id and user_id = p_user_id and deleted_at is null) then
    raise sqlstate 'PT404' using message = format('you have no job %s', p_job_id);
  end if;
  v_job := fishserve.lock_job(p_job_id);
  if v_job.status in ('queued', 'running') and v_job.heard and v_job.lease_until > now() then
    raise sqlstate 'PT409' using message = 'you are listening to this job: it stops when that connection is closed, and costs what was made until then';
  end if;
  return fishserve.end_job(v_job, 'cancelled', 'cancelled by its user', greatest(v_job.heard_seconds, case when v_job.status = 'running' then
    greatest(p_seconds, case when v_job.lease_until > now() then v_job.made_seconds end) end));
end $$;

-- The answer to a request was lost on its way to the API, which made up the key and told the client that it failed: the job, if one was made, ends
-- and costs nothing. {job, changed}; job is null where none was made.
create function public.give_up_request(p_user_id uuid, p_idempotency_key text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  perform fishserve.lock_profile(p_user_id); -- waits for the request, should the database still be at it
  select * into v_job from public.jobs where user_id = p_user_id and idempotency_key = p_idempotency_key for no key update;
  if not found then return jsonb_build_object('job', null, 'changed', false); end if;
  return fishserve.end_job(v_job, 'failed', 'the answer to its request was lost; nothing was charged', 0);
end $$;

-- Jobs that wait for this voice end with it, and their credits come back: nobody speaks them with another voice.
create or replace function public.delete_voice(p_user_id uuid, p_voice_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_voice public.cloned_voices;
  v_job public.jobs;
begin
  perform fishserve.lock_profile(p_user_id); -- before the jobs, as all that moves credits
  v_voice := fishserve.lock_voice(p_user_id, p_voice_id);
  for v_job in
    select * from public.jobs where voice_id = p_voice_id and user_id = p_user_id and status = 'queued' and (lease_until is null or lease_until < now())
    for no key update
  loop
    perform fishserve.end_job(v_job, 'failed', 'its voice was deleted before it was spoken', v_job.heard_seconds);
  end loop;
  perform fishserve.erase_voice(p_voice_id);
  return jsonb_build_object('object_key', v_voice.object_key);
end $$;

drop function fishserve.speech_seconds;
revoke execute on all functions in schema fishserve from public;
revoke execute on function public.estimate_credits, public.process_audio_request, public.renew_lease, public.settle_job, public.refund_job, public.cancel_job,
  public.give_up_request from public, anon, authenticated;
grant execute on function public.estimate_credits, public.process_audio_request, public.renew_lease, public.settle_job, public.refund_job, public.cancel_job,
  public.give_up_request to service_role;

insert into fishserve.migrations (name) values ('20261126000200_fair_jobs');
