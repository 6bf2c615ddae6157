-- Keys that end by themselves, spend so much a month, and are good from some networks alone; and what each key has used.

alter table public.api_keys
  add column expires_at timestamptz, -- null: never
  add column monthly_credits bigint check (monthly_credits >= 0), -- the most that it spends in a calendar month, UTC; null: all there are
  add column networks cidr[]; -- from which it is good; null: from anywhere
grant select (expires_at, monthly_credits, networks) on public.api_keys to authenticated;

create table public.key_usage (
  key_id uuid not null references public.api_keys (id) on delete cascade,
  day date not null, -- UTC
  jobs bigint not null default 0,
  characters bigint not null default 0,
  seconds numeric not null default 0,
  credits bigint not null default 0,
  primary key (key_id, day)
);
alter table public.key_usage enable row level security;
revoke all on public.key_usage from anon, authenticated, service_role;
create policy "owners read" on public.key_usage for select to authenticated
  using (exists (select from public.api_keys k where k.id = key_id and k.user_id = (select auth.uid())));
create policy "the service reads" on public.key_usage for select to service_role using (true);
grant select on public.key_usage to authenticated, service_role;
create index jobs_unfinished_of_key on public.jobs (api_key_id) where finished_at is null;

insert into public.key_usage (key_id, day, jobs, characters, seconds, credits)
  select api_key_id, (finished_at at time zone 'utc')::date, count(*), sum(characters), sum(seconds), sum(charged)
  from public.jobs where api_key_id is not null and seconds is not null group by 1, 2;

-- What a key has spent in this month: {credits}, and what its jobs that are under way may cost.
create function fishserve.spent_by_key(p_key_id uuid) returns bigint
language sql stable set search_path = '' as $$
  select coalesce((select sum(credits) from public.key_usage where key_id = p_key_id and day >= date_trunc('month', now() at time zone 'utc')), 0)::bigint
    + coalesce((select sum(reserved) from public.jobs where api_key_id = p_key_id and finished_at is null), 0)::bigint
$$;

create function fishserve.key_json(p_key public.api_keys) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_key) - 'hash' || jsonb_build_object('spent', fishserve.spent_by_key(p_key.id))
$$;

drop function public.create_api_key;
create function public.create_api_key(p_user_id uuid, p_name text, p_prefix text, p_hash text, p_scopes text[], p_expires_at timestamptz default null,
  p_monthly_credits bigint default null, p_networks text[] default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_name text := btrim(p_name);
  v_key public.api_keys;
  v_network text;
  v_networks cidr[];
begin
  perform fishserve.open_profile(p_user_id);
  if coalesce(char_length(v_name), 0) not between 1 and 100 then raise sqlstate 'PT422' using message = 'a key needs a name of 1 to 100 characters'; end if;
  if coalesce(cardinality(p_scopes), 0) = 0 or not p_scopes <@ array['speak', 'voices', 'read'] then
    raise sqlstate 'PT422' using message = 'a key needs scopes out of speak, voices and read';
  end if;
  if p_expires_at <= now() then raise sqlstate 'PT422' using message = format('a key cannot end at %s: that is over', p_expires_at); end if;
  if p_monthly_credits < 0 then raise sqlstate 'PT422' using message = format('a key cannot spend %s credits a month', p_monthly_credits); end if;
  if cardinality(p_networks) > 20 then raise sqlstate 'PT422' using message = format('a key may have 20 networks, not %s', cardinality(p_networks)); end if;
  foreach v_network in array coalesce(p_networks, '{}') loop
    begin
      v_networks := v_networks || network(v_network::inet)::cidr;
    exception when invalid_text_representation then
      raise sqlstate 'PT422' using message = format('%s is no network like 203.0.113.0/24 or 2001:db8::/32', left(v_network, 80));
    end;
  end loop;
  if (select count(*) from public.api_keys where user_id = p_user_id and revoked_at is null) >= 20 then
    raise sqlstate 'PT409' using message = 'you have 20 keys, the most an account may have; revoke one first';
  end if;
  insert into public.api_keys (user_id, name, prefix, hash, scopes, expires_at, monthly_credits, networks)
    values (p_user_id, v_name, p_prefix, p_hash, p_scopes, p_expires_at, p_monthly_credits, v_networks) returning * into v_key;
  return jsonb_build_object('key', fishserve.key_json(v_key));
end $$;

create or replace function public.list_api_keys(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.key_json(k) order by k.created_at desc), '[]') from public.api_keys k where k.user_id = p_user_id and k.revoked_at is null
$$;

create or replace function public.revoke_api_key(p_user_id uuid, p_key_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_key public.api_keys;
begin
  update public.api_keys set revoked_at = coalesce(revoked_at, now()) where id = p_key_id and user_id = p_user_id returning * into v_key;
  if not found then raise sqlstate 'PT404' using message = format('you have no key %s', p_key_id); end if;
  return jsonb_build_object('key', fishserve.key_json(v_key));
end $$;

-- `address`: where the request comes from.
drop function public.authenticate_api_key;
create function public.authenticate_api_key(p_prefix text, p_hash text, p_address text default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_key public.api_keys;
  v_plan text;
begin
  select k.* into v_key from public.api_keys k where k.prefix = p_prefix and k.hash = p_hash;
  if not found then raise sqlstate 'PT401' using message = 'this API key is not known'; end if;
  if v_key.revoked_at is not null then raise sqlstate 'PT401' using message = 'this API key was revoked'; end if;
  if v_key.expires_at <= now() then raise sqlstate 'PT401' using message = 'this API key has ended; make another one'; end if;
  if v_key.networks is not null and not coalesce(p_address::inet <<= any (v_key.networks), false) then
    raise sqlstate 'PT403' using message = format('this API key is not good from %s', coalesce(p_address, 'an address that is not known'));
  end if;
  select plan into v_plan from public.profiles where id = v_key.user_id and closed_at is null;
  if not found then raise sqlstate 'PT401' using message = 'the account of this API key was closed'; end if;
  if exists (select from auth.users where id = v_key.user_id and banned_until > now()) then
    raise sqlstate 'PT401' using message = 'the account of this API key is suspended';
  end if;
  update public.api_keys set last_used_at = now() -- to the minute: a busy key is not a row written a hundred times a second
    where id = v_key.id and (last_used_at is null or last_used_at < now() - interval '1 minute');
  return jsonb_build_object('user_id', v_key.user_id, 'key_id', v_key.id, 'scopes', to_jsonb(v_key.scopes), 'plan', v_plan);
end $$;

create or replace function fishserve.count_usage(p_job public.jobs) returns void
language sql set search_path = '' as $$
  insert into public.usage as u (user_id, day, jobs, characters, seconds, credits)
    values (p_job.user_id, (now() at time zone 'utc')::date, 1, p_job.characters, p_job.seconds, p_job.charged)
    on conflict (user_id, day) do update set jobs = u.jobs + 1, characters = u.characters + excluded.characters,
      seconds = u.seconds + excluded.seconds, credits = u.credits + excluded.credits;
  insert into public.key_usage as u (key_id, day, jobs, characters, seconds, credits)
    select p_job.api_key_id, (now() at time zone 'utc')::date, 1, p_job.characters, p_job.seconds, p_job.charged where p_job.api_key_id is not null
    on conflict (key_id, day) do update set jobs = u.jobs + 1, characters = u.characters + excluded.characters,
      seconds = u.seconds + excluded.seconds, credits = u.credits + excluded.credits;
$$;

-- Of a user, or of one key.
drop function public.usage;
create function public.usage(p_user_id uuid, p_days integer default 30, p_key_id uuid default null) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(u) order by u.day), '[]') from (
    select day, jobs, characters, seconds, credits from public.usage where user_id = p_user_id and p_key_id is null
    union all select d.day, d.jobs, d.characters, d.seconds, d.credits from public.key_usage d join public.api_keys k on k.id = d.key_id
      where d.key_id = p_key_id and k.user_id = p_user_id
  ) u where u.day > (now() at time zone 'utc')::date - greatest(0, least(coalesce(p_days, 30), 3660))
$$;

-- As before, within the limits of the key, too.
create or replace function public.process_audio_request(
  p_user_id uuid, p_idempotency_key text, p_fingerprint text, p_text text, p_token_hash text,
  p_voice_id uuid default null, p_options jsonb default '{}', p_api_key_id uuid default null, p_letters numeric default null, p_silence numeric default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.open_profile(p_user_id);
  v_plan public.plans := fishserve.plan_of(p_user_id);
  v_options jsonb := coalesce(case jsonb_typeof(p_options) when 'string' then (p_options #>> '{}')::jsonb else p_options end, '{}'); -- @supabase/lite sends its text
  v_key public.api_keys;
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
  if p_api_key_id is not null then
    select * into v_key from public.api_keys where id = p_api_key_id and user_id = p_user_id and revoked_at is null;
    if not found then raise sqlstate 'PT403' using message = 'this API key was revoked'; end if;
    if v_key.expires_at <= now() then raise sqlstate 'PT403' using message = 'this API key has ended; make another one'; end if;
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
  if v_key.monthly_credits is not null and fishserve.spent_by_key(p_api_key_id) + v_need > v_key.monthly_credits then
    raise sqlstate 'PT402' using message = format('this needs %s credits; this key may spend %s a month, and has %s left', v_need, v_key.monthly_credits,
      greatest(0, v_key.monthly_credits - fishserve.spent_by_key(p_api_key_id)));
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

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.create_api_key, public.authenticate_api_key, public.usage from public, anon, authenticated;
grant execute on function public.create_api_key, public.authenticate_api_key, public.usage to service_role;

insert into fishserve.migrations (name) values ('20261127000400_keys');
