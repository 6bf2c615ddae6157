-- A job is a text to speak, paid for by a reservation. queued -> running -> succeeded | failed | cancelled | expired; an ended job never changes back.
-- Reserved and queued in one transaction; ended exactly once, by settling (the price of the audio, never more than was reserved) or by refunding.

create table public.jobs (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.profiles (id),
  api_key_id uuid references public.api_keys (id) on delete set null,
  idempotency_key text not null check (char_length(idempotency_key) between 1 and 255),
  fingerprint text not null,
  text text, -- null once deleted
  voice_id uuid references public.cloned_voices (id) on delete set null,
  options jsonb not null default '{}' check (jsonb_typeof(options) = 'object'),
  characters integer not null,
  price_id bigint not null references public.prices (id),
  reserved bigint not null check (reserved >= 0),
  charged bigint not null default 0 check (charged between 0 and reserved),
  status text not null default 'queued' check (status in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')),
  backend text,
  backend_id text,
  token_hash text not null,
  attempts integer not null default 0,
  lease_until timestamptz,
  object_key text,
  seconds numeric,
  frames bigint,
  bytes bigint,
  sha256 text,
  heard boolean not null default false, -- its client hears it while it is made, and pays for what it heard
  error text,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  expires_at timestamptz, -- when its result is deleted
  deleted_at timestamptz,
  unique (user_id, idempotency_key),
  check ((status in ('queued', 'running')) = (finished_at is null))
);
create index jobs_of_user on public.jobs (user_id, created_at);
create index jobs_unfinished on public.jobs (created_at) where status in ('queued', 'running');
create index jobs_with_result on public.jobs (expires_at) where object_key is not null;
create index jobs_of_key on public.jobs (api_key_id);
create index jobs_of_voice on public.jobs (voice_id);
create index jobs_of_price on public.jobs (price_id);
alter table public.transactions add foreign key (job_id) references public.jobs (id);

create table public.usage (
  user_id uuid not null references public.profiles (id),
  day date not null, -- UTC
  jobs bigint not null default 0,
  characters bigint not null default 0,
  seconds numeric not null default 0,
  credits bigint not null default 0,
  primary key (user_id, day)
);

alter table public.jobs enable row level security;
alter table public.usage enable row level security;
revoke all on public.jobs, public.usage from anon, authenticated, service_role;
create policy "owners read" on public.jobs for select to authenticated using ((select auth.uid()) = user_id and deleted_at is null);
create policy "owners read" on public.usage for select to authenticated using ((select auth.uid()) = user_id);
grant select (id, user_id, api_key_id, idempotency_key, text, voice_id, options, characters, reserved, charged, status, seconds, frames, bytes, error,
  created_at, started_at, finished_at, expires_at, deleted_at) on public.jobs to authenticated;
grant select on public.usage to authenticated;
grant select on public.jobs, public.usage to service_role;

create function fishserve.job_json(p_job public.jobs) returns jsonb
language sql immutable set search_path = '' as $$
  select to_jsonb(p_job) - 'token_hash' - 'fingerprint' - 'price_id' - 'deleted_at'
$$;

-- What a job is spoken with: the voice, if it names one that is ready.
create function fishserve.voice_of_job(p_job public.jobs) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(v) from public.cloned_voices v where v.id = p_job.voice_id and v.status = 'ready'
$$;

create function fishserve.job_with_voice(p_job public.jobs) returns jsonb
language sql stable set search_path = '' as $$
  select fishserve.job_json(p_job) || jsonb_build_object('voice', fishserve.voice_of_job(p_job))
$$;

-- Reserves the estimate and queues the job, or answers the job that the idempotency key made before: {job, replayed, balance, voice}.
create function public.process_audio_request(
  p_user_id uuid, p_idempotency_key text, p_fingerprint text, p_text text, p_token_hash text,
  p_voice_id uuid default null, p_options jsonb default '{}', p_api_key_id uuid default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.open_profile(p_user_id);
  v_options jsonb := coalesce(case jsonb_typeof(p_options) when 'string' then (p_options #>> '{}')::jsonb else p_options end, '{}'); -- @supabase/lite sends its text
  v_price public.prices;
  v_speed numeric := 1;
  v_need bigint;
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
  if found then
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
  if jsonb_typeof(v_options -> 'speed') = 'number' then v_speed := (v_options ->> 'speed')::numeric; end if;
  if v_speed not between 0.1 and 10 then raise sqlstate 'PT422' using message = format('the speed is %s; it may be 0.1 to 10', v_speed); end if;
  if p_voice_id is not null and not exists (select from public.cloned_voices where id = p_voice_id and user_id = p_user_id and status = 'ready') then
    raise sqlstate 'PT404' using message = format('you have no voice %s that is ready', p_voice_id);
  end if;

  v_price := fishserve.active_price();
  v_need := fishserve.credits(fishserve.speech_seconds(p_text, v_speed, v_price.characters_per_second), v_price);
  if v_profile.balance < v_need then
    raise sqlstate 'PT402' using message = format('this needs %s credits; you have %s', v_need, v_profile.balance);
  end if;
  insert into public.jobs (user_id, api_key_id, idempotency_key, fingerprint, text, voice_id, options, characters, price_id, reserved, token_hash)
    values (p_user_id, p_api_key_id, p_idempotency_key, p_fingerprint, p_text, p_voice_id, v_options, char_length(p_text), v_price.id, v_need, p_token_hash)
    returning * into v_job;
  v_balance := fishserve.post(p_user_id, 'reserve', -v_need, v_job.id, v_job.id::text);
  return jsonb_build_object('job', fishserve.job_json(v_job), 'replayed', false, 'balance', v_balance, 'voice', fishserve.voice_of_job(v_job));
end $$;

-- Jobs to hand to a backend, each with its voice: those queued, and those running whose lease is over and that no outside backend is known to have.
create function public.claim_jobs(p_limit integer, p_lease_seconds numeric) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.jobs
    where status in ('queued', 'running') and (lease_until is null or lease_until < now())
      and (status = 'queued' or backend is null or backend = 'fishserve' or backend_id is null)
    order by created_at limit greatest(0, least(p_limit, 1000)) for update skip locked
  ), claimed as (
    update public.jobs j set lease_until = now() + make_interval(secs => p_lease_seconds), attempts = j.attempts + 1 from due where j.id = due.id returning j.*
  )
  select coalesce(jsonb_agg(fishserve.job_with_voice(claimed) order by created_at), '[]') from claimed
$$;

-- The same for one job; null where another has it or it is over.
create function public.claim_job(p_job_id uuid, p_lease_seconds numeric) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.jobs
    where id = p_job_id and status in ('queued', 'running') and (lease_until is null or lease_until < now())
      and (status = 'queued' or backend is null or backend = 'fishserve' or backend_id is null)
    for update skip locked
  ), claimed as (
    update public.jobs j set lease_until = now() + make_interval(secs => p_lease_seconds), attempts = j.attempts + 1 from due where j.id = due.id returning j.*
  )
  select fishserve.job_with_voice(claimed) from claimed
$$;

create function public.start_job(p_job_id uuid, p_backend text, p_backend_id text default null, p_heard boolean default false) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  update public.jobs set status = 'running', backend = p_backend, backend_id = p_backend_id, heard = p_heard,
    started_at = coalesce(started_at, now())
    where id = p_job_id and status in ('queued', 'running') returning * into v_job;
  if not found then
    select * into v_job from public.jobs where id = p_job_id;
    if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
    raise sqlstate 'PT409' using message = format('the job is over: it %s', case v_job.status when 'cancelled' then 'was cancelled' else v_job.status end);
  end if;
  return fishserve.job_json(v_job);
end $$;

-- {renewed, status}: false when the job is over.
create function public.renew_lease(p_job_id uuid, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_status text;
begin
  update public.jobs set lease_until = now() + make_interval(secs => p_lease_seconds) where id = p_job_id and status in ('queued', 'running') returning status into v_status;
  if found then return jsonb_build_object('renewed', true, 'status', v_status); end if;
  select status into v_status from public.jobs where id = p_job_id;
  if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
  return jsonb_build_object('renewed', false, 'status', v_status);
end $$;

-- Locks the profile of a job, then the job: the order of all that moves credits.
create function fishserve.lock_job(p_job_id uuid) returns public.jobs
language plpgsql set search_path = '' as $$
declare
  v_job public.jobs;
begin
  select * into v_job from public.jobs where id = p_job_id;
  if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
  perform fishserve.lock_profile(v_job.user_id);
  select * into v_job from public.jobs where id = p_job_id for no key update;
  return v_job;
end $$;

create function fishserve.balance_of(p_user_id uuid) returns bigint
language sql stable set search_path = '' as $$
  select balance from public.profiles where id = p_user_id
$$;

-- The audio is in the bucket: charges its price and returns the rest. {job, balance, changed}; a job that is over stays as it was.
create function public.settle_job(p_job_id uuid, p_seconds numeric, p_frames bigint, p_bytes bigint, p_sha256 text, p_object_key text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs := fishserve.lock_job(p_job_id);
  v_price public.prices;
  v_charged bigint;
  v_balance bigint;
begin
  if v_job.status not in ('queued', 'running') then
    if p_object_key is distinct from v_job.object_key then perform fishserve.give_up_object(p_object_key); end if; -- too late: nobody will ask for it
    return jsonb_build_object('job', fishserve.job_json(v_job), 'balance', fishserve.balance_of(v_job.user_id), 'changed', false);
  end if;
  if p_seconds is null or not p_seconds between 0 and 1000000 then
    raise sqlstate 'PT422' using message = format('audio of %s seconds cannot be settled', coalesce(p_seconds::text, 'unknown'));
  end if;
  select * into v_price from public.prices where id = v_job.price_id;
  v_charged := least(v_job.reserved, fishserve.credits(p_seconds, v_price));
  update public.jobs set status = 'succeeded', charged = v_charged, seconds = p_seconds, frames = p_frames, bytes = p_bytes, sha256 = p_sha256,
    object_key = p_object_key, error = null, lease_until = null, finished_at = now(),
    expires_at = now() + make_interval(days => (select result_days from public.settings))
    where id = p_job_id returning * into v_job;
  v_balance := fishserve.post(v_job.user_id, 'settle', v_job.reserved - v_charged, v_job.id, v_job.id::text);
  insert into public.usage as u (user_id, day, jobs, characters, seconds, credits)
    values (v_job.user_id, (now() at time zone 'utc')::date, 1, v_job.characters, p_seconds, v_charged)
    on conflict (user_id, day) do update set jobs = u.jobs + 1, characters = u.characters + excluded.characters,
      seconds = u.seconds + excluded.seconds, credits = u.credits + excluded.credits;
  return jsonb_build_object('job', fishserve.job_json(v_job), 'balance', v_balance, 'changed', true);
end $$;

-- No audio will come: returns all that was reserved. {job, balance, changed}; a job that is over stays as it was.
create function public.refund_job(p_job_id uuid, p_status text, p_error text default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs := fishserve.lock_job(p_job_id);
  v_balance bigint;
begin
  if v_job.status not in ('queued', 'running') then
    return jsonb_build_object('job', fishserve.job_json(v_job), 'balance', fishserve.balance_of(v_job.user_id), 'changed', false);
  end if;
  if p_status is null or p_status not in ('failed', 'cancelled', 'expired') then
    raise sqlstate 'PT422' using message = format('a job is refunded as failed, cancelled or expired, not as %s', coalesce(p_status, 'null'));
  end if;
  update public.jobs set status = p_status, error = left(p_error, 500), lease_until = null, finished_at = now() where id = p_job_id returning * into v_job;
  v_balance := fishserve.post(v_job.user_id, 'refund', v_job.reserved, v_job.id, v_job.id::text);
  return jsonb_build_object('job', fishserve.job_json(v_job), 'balance', v_balance, 'changed', true);
end $$;

-- What its user calls off: refunded, as refund_job. One that a client is hearing is not given back for nothing: it ends when that client leaves.
create function public.cancel_job(p_user_id uuid, p_job_id uuid) returns jsonb
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
  return public.refund_job(p_job_id, 'cancelled', 'cancelled by its user');
end $$;

-- The sweeper: ends up to a hundred reservations that nobody has touched for so long, and answers them.
create function public.expire_reservations(p_older_than_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_before timestamptz := now() - make_interval(secs => p_older_than_seconds);
  v_ended jsonb;
  v_all jsonb := '[]'::jsonb;
begin
  for v_id in -- by user: two sweepers meet the profiles in one order
    select id from (
      select id, user_id from public.jobs where status in ('queued', 'running') and greatest(created_at, lease_until) < v_before order by created_at limit 100
    ) old
    order by user_id, id
  loop
    perform fishserve.lock_job(v_id);
    continue when not exists (
      select from public.jobs where id = v_id and status in ('queued', 'running') and greatest(created_at, lease_until) < v_before);
    v_ended := public.refund_job(v_id, 'expired', 'nobody finished it in time; the credits were returned');
    v_all := v_all || jsonb_build_array(v_ended -> 'job');
  end loop;
  return v_all;
end $$;

-- Results that have been kept long enough: [{job_id, object_key}] to delete from the bucket, as they are on the list of objects_to_delete.
create function public.expire_results() returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
  v_all jsonb := '[]'::jsonb;
begin
  for v_job in select * from public.jobs where object_key is not null and expires_at < now() order by expires_at limit 1000 for update skip locked loop
    update public.jobs set object_key = null where id = v_job.id;
    perform fishserve.give_up_object(v_job.object_key);
    v_all := v_all || jsonb_build_array(jsonb_build_object('job_id', v_job.id, 'object_key', v_job.object_key));
  end loop;
  return v_all;
end $$;

create function public.job_of_token(p_job_id uuid, p_token_hash text) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  select * into v_job from public.jobs where id = p_job_id and token_hash = p_token_hash;
  if not found then raise sqlstate 'PT404' using message = 'no job has this token'; end if;
  return fishserve.job_with_voice(v_job);
end $$;

-- Jobs that a backend has, those asked about longest ago first, as far as leases tell.
create function public.running_jobs(p_limit integer default 100) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.job_json(j) order by j.lease_until nulls first, j.created_at), '[]') from (
    select * from public.jobs where status = 'running' order by lease_until nulls first, created_at limit greatest(0, least(p_limit, 1000))
  ) j
$$;

create function public.get_job(p_user_id uuid, p_job_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  select * into v_job from public.jobs where id = p_job_id and user_id = p_user_id and deleted_at is null;
  if not found then raise sqlstate 'PT404' using message = format('you have no job %s', p_job_id); end if;
  return fishserve.job_json(v_job);
end $$;

-- Newest first; `before` is the created_at of the last one seen.
create function public.list_jobs(p_user_id uuid, p_before timestamptz default null, p_limit integer default 50, p_search text default null) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.job_json(j) order by j.created_at desc), '[]') from (
    select * from public.jobs
    where user_id = p_user_id and deleted_at is null and (p_before is null or created_at < p_before)
      and (coalesce(p_search, '') = '' or position(lower(p_search) in lower(text)) > 0)
    order by created_at desc limit greatest(0, least(coalesce(p_limit, 50), 200))
  ) j
$$;

-- Takes the text and the result of a job that is over: {object_key}, null where there was no result.
create function public.delete_job(p_user_id uuid, p_job_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  select * into v_job from public.jobs where id = p_job_id and user_id = p_user_id and deleted_at is null for no key update;
  if not found then raise sqlstate 'PT404' using message = format('you have no job %s', p_job_id); end if;
  if v_job.status in ('queued', 'running') then raise sqlstate 'PT409' using message = 'the job is not over; cancel it first'; end if;
  update public.jobs set text = null, options = '{}', error = null, sha256 = null, object_key = null, deleted_at = now() where id = p_job_id;
  perform fishserve.give_up_object(v_job.object_key);
  return jsonb_build_object('object_key', v_job.object_key);
end $$;

create function public.usage(p_user_id uuid, p_days integer default 30) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(u) - 'user_id' order by u.day), '[]') from public.usage u
  where u.user_id = p_user_id and u.day > (now() at time zone 'utc')::date - greatest(0, least(coalesce(p_days, 30), 3660))
$$;

-- Whose balance is not the sum of the ledger, and which job's entries are not what it cost: always []. For a nightly look and the tests.
create function public.audit_ledger() returns jsonb
language sql stable security definer set search_path = '' as $$
  with wrong as (
    select jsonb_build_object('user_id', p.id, 'expected', p.balance, 'ledger', coalesce(sum(t.amount), 0)) as entry
    from public.profiles p left join public.transactions t on t.user_id = p.id
    group by p.id having p.balance <> coalesce(sum(t.amount), 0)
    union all
    select jsonb_build_object('job_id', j.id, 'expected', -case when j.finished_at is null then j.reserved else j.charged end, 'ledger', coalesce(sum(t.amount), 0))
    from public.jobs j left join public.transactions t on t.job_id = j.id
    group by j.id having coalesce(sum(t.amount), 0) <> -case when j.finished_at is null then j.reserved else j.charged end
      or count(*) <> case when j.finished_at is null then 1 else 2 end
  )
  select coalesce(jsonb_agg(entry), '[]') from wrong
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.process_audio_request, public.claim_jobs, public.claim_job, public.start_job, public.renew_lease, public.settle_job,
  public.refund_job, public.cancel_job, public.expire_reservations, public.expire_results, public.job_of_token, public.running_jobs, public.get_job, public.list_jobs,
  public.delete_job, public.usage, public.audit_ledger from public, anon, authenticated;
grant execute on function public.process_audio_request, public.claim_jobs, public.claim_job, public.start_job, public.renew_lease, public.settle_job,
  public.refund_job, public.cancel_job, public.expire_reservations, public.expire_results, public.job_of_token, public.running_jobs, public.get_job, public.list_jobs,
  public.delete_job, public.usage, public.audit_ledger to service_role;

insert into fishserve.migrations (name) values ('20261125000900_jobs');
