-- fishserve's schema, 20261128000700_streams, for the SQL editor of a new Supabase project: paste it whole and run it once.
-- Written by `python -m saas.schema` from sql/migrations. To update an older schema, run the newer files of that folder one by one.
-- It is one transaction: should any of it fail, nothing of it is there; run twice, it says that the schema exists and changes nothing.

begin;

-- 20261125000100_foundation.sql

-- The schema that nobody but the owner may look into: helpers of the public functions, and which migrations are in.
-- Each migration ends by writing its own name here, whichever tool applied it; applying one twice therefore fails before it changes anything.
-- Nothing here needs an extension. A refusal is `raise sqlstate 'PT4xx'`: PostgREST answers it as HTTP 4xx with the message.

create schema fishserve;
revoke all on schema fishserve from public;

create table fishserve.migrations (
  name text primary key,
  applied_at timestamptz not null default now()
);
alter table fishserve.migrations enable row level security;
create policy "the owner alone" on fishserve.migrations for select using (false);

insert into fishserve.migrations (name) values ('20261125000100_foundation');

-- 20261125000200_prices.sql

-- What things cost: the price of a second of speech, the packs of credits for sale, and the few settings of money and storage.
-- Credits are whole numbers. Edited by the operator in SQL; clients may read what is for sale.

create table public.prices (
  id bigint generated always as identity primary key,
  name text not null,
  credits_per_second numeric not null check (credits_per_second >= 0),
  minimum bigint not null check (minimum >= 0),
  characters_per_second numeric not null check (characters_per_second > 0), -- how fast speech goes, for the estimate
  active boolean not null default false,
  created_at timestamptz not null default now()
);
create unique index prices_one_active on public.prices (active) where active;
insert into public.prices (name, credits_per_second, minimum, characters_per_second, active) values ('standard', 10, 10, 13, true);

create table public.packs (
  id text primary key,
  credits bigint not null check (credits > 0),
  amount_cents bigint not null check (amount_cents > 0),
  currency text not null default 'usd' check (currency ~ '^[a-z]{3}$'),
  active boolean not null default true
);
insert into public.packs (id, credits, amount_cents) values ('small', 10000, 500), ('medium', 50000, 2000), ('large', 250000, 8000);

create table public.settings (
  only_row boolean primary key default true check (only_row),
  grant_on_sign_up bigint not null default 0 check (grant_on_sign_up >= 0),
  result_days integer not null default 7 check (result_days > 0) -- how long a result is kept
);
insert into public.settings default values;

alter table public.prices enable row level security;
alter table public.packs enable row level security;
alter table public.settings enable row level security;
revoke all on public.prices, public.packs, public.settings from anon, authenticated, service_role;
create policy "anyone reads the price" on public.prices for select to anon, authenticated using (active);
create policy "anyone reads what is for sale" on public.packs for select to anon, authenticated using (active);
create policy "the service reads and changes settings" on public.settings for all to service_role using (true) with check (true);
grant select on public.prices, public.packs to anon, authenticated;
grant select, insert, update on public.prices, public.packs to service_role;
grant select, update on public.settings to service_role;

create function public.list_packs() returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(p) order by p.amount_cents), '[]') from public.packs p where p.active
$$;

-- How long a text takes to say, a quarter more than on average. A character of Chinese, Japanese or Korean takes as long as three letters.
create function fishserve.speech_seconds(p_text text, p_speed numeric, p_characters_per_second numeric) returns numeric
language sql immutable set search_path = '' as $$
  select 1.25 * (char_length(p_text) + 2 * char_length(regexp_replace(p_text, '[^\u1100-\u11FF\u3040-\u30FF\u3400-\u9FFF\uAC00-\uD7AF]+', '', 'g')))
    / p_characters_per_second / p_speed
$$;

create function fishserve.credits(p_seconds numeric, p_price public.prices) returns bigint
language sql immutable set search_path = '' as $$
  select greatest(p_price.minimum, ceil(p_seconds * p_price.credits_per_second)::bigint)
$$;

create function fishserve.active_price() returns public.prices
language plpgsql stable set search_path = '' as $$
declare
  v_price public.prices;
begin
  select * into v_price from public.prices where active;
  if not found then raise sqlstate 'PT403' using message = 'nothing is for sale: no price is active in the table prices'; end if;
  return v_price;
end $$;

-- What a request to speak this would reserve: {credits, characters, seconds}.
create function public.estimate_credits(p_text text, p_speed numeric default 1) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_price public.prices := fishserve.active_price();
  v_seconds numeric;
begin
  if coalesce(p_speed, 1) not between 0.1 and 10 then raise sqlstate 'PT422' using message = format('the speed is %s; it may be 0.1 to 10', p_speed); end if;
  v_seconds := fishserve.speech_seconds(coalesce(p_text, ''), coalesce(p_speed, 1), v_price.characters_per_second);
  return jsonb_build_object('credits', fishserve.credits(v_seconds, v_price), 'characters', char_length(coalesce(p_text, '')), 'seconds', round(v_seconds, 1));
end $$;

revoke execute on function public.list_packs, public.estimate_credits, fishserve.speech_seconds, fishserve.credits, fishserve.active_price
  from public, anon, authenticated;
grant execute on function public.list_packs, public.estimate_credits to service_role;

insert into fishserve.migrations (name) values ('20261125000200_prices');

-- 20261125000300_profiles.sql

-- One profile a user of auth.users. It has no foreign key there: an account that is deleted leaves its ledger behind, without a name on it.
-- A user may read the own row and change the display name; balance, debt and plan have no way in but the functions.

create table public.profiles (
  id uuid primary key, -- auth.users.id
  email text,
  display_name text check (char_length(display_name) <= 80),
  balance bigint not null default 0 check (balance >= 0), -- the sum of the ledger, kept by a trigger on it
  debt bigint not null default 0 check (debt >= 0), -- what a refund or dispute took that had been spent; the next credits repay it
  plan text not null default 'free',
  stripe_customer text,
  closed_at timestamptz,
  created_at timestamptz not null default now()
);

alter table public.profiles enable row level security;
revoke all on public.profiles from anon, authenticated, service_role;
create policy "owners read" on public.profiles for select to authenticated using ((select auth.uid()) = id);
create policy "owners change their name" on public.profiles for update to authenticated
  using ((select auth.uid()) = id and closed_at is null) with check ((select auth.uid()) = id);
grant select (id, email, display_name, balance, debt, plan, created_at), update (display_name) on public.profiles to authenticated;
grant select on public.profiles to service_role;

insert into fishserve.migrations (name) values ('20261125000300_profiles');

-- 20261125000400_ledger.sql

-- The ledger: append-only, and the only way a balance changes. Inserting an entry moves the balance in the same statement, so their sums cannot part.
-- Every function that moves credits first locks the profile (fishserve.lock_profile), then the job: one order, no deadlock.

create table public.transactions (
  id bigint generated always as identity primary key,
  user_id uuid not null references public.profiles (id),
  kind text not null,
  amount bigint not null,
  balance_after bigint not null,
  job_id uuid,
  reference text not null,
  created_at timestamptz not null default now(),
  unique (user_id, kind, reference),
  constraint transactions_sign check (case kind
    when 'purchase' then amount > 0
    when 'grant' then amount > 0
    when 'reserve' then amount <= 0 -- the estimate
    when 'settle' then amount >= 0 -- what the estimate was too much
    when 'refund' then amount >= 0 -- all of it
    when 'chargeback' then amount <= 0 -- a payment that was refunded or disputed
    when 'adjust' then true -- debt repaid, a dispute won, a correction by hand
    else false end),
  constraint transactions_of_jobs check ((kind in ('reserve', 'settle', 'refund')) = (job_id is not null))
);
create unique index transactions_one_reservation on public.transactions (job_id) where kind = 'reserve';
create unique index transactions_one_end on public.transactions (job_id) where kind in ('settle', 'refund');
create index transactions_of_user on public.transactions (user_id, id);
create index transactions_of_job on public.transactions (job_id);

alter table public.transactions enable row level security;
revoke all on public.transactions from anon, authenticated, service_role;
create policy "owners read" on public.transactions for select to authenticated using ((select auth.uid()) = user_id);
grant select on public.transactions to authenticated, service_role;

create function fishserve.apply_entry() returns trigger
language plpgsql set search_path = '' as $$
begin
  update public.profiles set balance = balance + new.amount where id = new.user_id returning balance into new.balance_after;
  return new;
end $$;
create trigger apply_entry before insert on public.transactions for each row execute function fishserve.apply_entry();

create function fishserve.keep_entries() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception 'the ledger is append-only: correct an entry by another one (select public.grant_credits(..., p_kind => ''adjust''))';
end $$;
create trigger keep_entries before update or delete on public.transactions for each row execute function fishserve.keep_entries();
create trigger keep_all_entries before truncate on public.transactions for each statement execute function fishserve.keep_entries();

-- Depth 2: this trigger runs inside the ledger's.
create function fishserve.guard_balance() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' and new.balance <> 0 or tg_op = 'UPDATE' and new.balance <> old.balance and pg_trigger_depth() < 2 then
    raise exception 'a balance changes by an entry of the ledger alone: select public.grant_credits(...)';
  end if;
  return new;
end $$;
create trigger guard_balance before insert or update on public.profiles for each row execute function fishserve.guard_balance();

-- Writes an entry of a locked profile and answers the balance; credits that come in repay debt first.
create function fishserve.post(p_user_id uuid, p_kind text, p_amount bigint, p_job_id uuid, p_reference text) returns bigint
language plpgsql set search_path = '' as $$
declare
  v_balance bigint;
  v_repaid bigint;
begin
  insert into public.transactions (user_id, kind, amount, balance_after, job_id, reference)
    values (p_user_id, p_kind, p_amount, 0, p_job_id, p_reference) returning balance_after into v_balance;
  if p_amount > 0 then
    select least(debt, v_balance) into v_repaid from public.profiles where id = p_user_id;
    if v_repaid > 0 then
      update public.profiles set debt = debt - v_repaid where id = p_user_id;
      insert into public.transactions (user_id, kind, amount, balance_after, reference)
        values (p_user_id, 'adjust', -v_repaid, 0, 'debt:' || p_kind || ':' || p_reference) returning balance_after into v_balance;
    end if;
  end if;
  return v_balance;
end $$;

-- Makes the profile of a user of auth.users where it is missing, with the credits a new account gets.
create function fishserve.ensure_profile(p_user_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  v_grant bigint;
begin
  insert into public.profiles (id, email) select u.id, u.email from auth.users u where u.id = p_user_id on conflict do nothing;
  if found then
    select grant_on_sign_up into v_grant from public.settings;
    if v_grant > 0 then perform fishserve.post(p_user_id, 'grant', v_grant, null, 'sign-up'); end if;
  end if;
end $$;

create function fishserve.lock_profile(p_user_id uuid) returns public.profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.profiles;
begin
  select * into v_profile from public.profiles where id = p_user_id for no key update;
  if not found then
    perform fishserve.ensure_profile(p_user_id);
    select * into v_profile from public.profiles where id = p_user_id for no key update;
    if not found then raise sqlstate 'PT404' using message = format('no user has the id %s', p_user_id); end if;
  end if;
  return v_profile;
end $$;

create function fishserve.open_profile(p_user_id uuid) returns public.profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.lock_profile(p_user_id);
begin
  if v_profile.closed_at is not null then raise sqlstate 'PT403' using message = 'this account was closed'; end if;
  if exists (select from auth.users where id = p_user_id and banned_until > now()) then
    raise sqlstate 'PT403' using message = 'this account is suspended';
  end if;
  return v_profile;
end $$;

-- Gives credits, once a kind and reference: {balance, applied}. With kind 'adjust' the number may be negative.
create function public.grant_credits(p_user_id uuid, p_credits bigint, p_reference text, p_kind text default 'grant') returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.lock_profile(p_user_id);
begin
  if p_kind is null or p_kind not in ('grant', 'adjust') then
    raise sqlstate 'PT422' using message = format('credits are given as grant or adjust, not as %s', coalesce(p_kind, 'null'));
  end if;
  if p_reference is null or btrim(p_reference) = '' then raise sqlstate 'PT422' using message = 'a grant needs a reference: it is given once a reference'; end if;
  if exists (select from public.transactions where user_id = p_user_id and kind = p_kind and reference = p_reference) then
    return jsonb_build_object('balance', v_profile.balance, 'applied', false);
  end if;
  if p_credits is null or p_credits = 0 or p_credits < 0 and p_kind = 'grant' then
    raise sqlstate 'PT422' using message = format('%s credits cannot be given', coalesce(p_credits::text, 'no'));
  end if;
  if v_profile.balance + p_credits < 0 then
    raise sqlstate 'PT402' using message = format('the balance is %s; %s cannot be taken', v_profile.balance, -p_credits);
  end if;
  return jsonb_build_object('balance', fishserve.post(p_user_id, p_kind, p_credits, null, p_reference), 'applied', true);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.grant_credits from public, anon, authenticated;
grant execute on function public.grant_credits to service_role;

insert into fishserve.migrations (name) values ('20261125000400_ledger');

-- 20261125000500_sign_up.sql

-- A sign-up makes a profile, and can never fail for it: whatever goes wrong here is a warning, and get_profile makes the profile later.

create function fishserve.user_created() returns trigger
language plpgsql security definer set search_path = '' set lock_timeout = '1s' as $$
begin
  perform fishserve.ensure_profile(new.id);
  return new;
exception when others then
  raise warning 'no profile was made at sign-up: % (%)', sqlerrm, sqlstate;
  return new;
end $$;
create trigger fishserve_user_created after insert on auth.users for each row execute function fishserve.user_created();

create function fishserve.user_changed() returns trigger
language plpgsql security definer set search_path = '' set lock_timeout = '1s' as $$
begin
  update public.profiles set email = new.email where id = new.id and closed_at is null;
  return new;
exception when others then
  raise warning 'the profile keeps its old email: % (%)', sqlerrm, sqlstate;
  return new;
end $$;
create trigger fishserve_user_changed after update of email on auth.users for each row
  when (old.email is distinct from new.email) execute function fishserve.user_changed();

create function public.get_profile(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles;
begin
  select * into v_profile from public.profiles where id = p_user_id;
  if not found then v_profile := fishserve.lock_profile(p_user_id); end if;
  if v_profile.closed_at is not null then raise sqlstate 'PT403' using message = 'this account was closed'; end if;
  return to_jsonb(v_profile);
end $$;

create function public.update_profile(p_user_id uuid, p_display_name text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.open_profile(p_user_id);
begin
  if char_length(p_display_name) > 80 then
    raise sqlstate 'PT422' using message = format('the name has %s characters; it may have 80', char_length(p_display_name));
  end if;
  update public.profiles set display_name = p_display_name where id = p_user_id returning * into v_profile;
  return to_jsonb(v_profile);
end $$;

revoke execute on function public.get_profile, public.update_profile, fishserve.user_created, fishserve.user_changed from public, anon, authenticated;
grant execute on function public.get_profile, public.update_profile to service_role;

insert into fishserve.migrations (name) values ('20261125000500_sign_up');

-- 20261125000600_objects.sql

-- Objects that must go from the bucket. A row is written in the transaction that gives up the object, and goes when the bucket has deleted it:
-- a process that dies between the two leaves the row, and the next one deletes.

create table public.deleted_objects (
  key text primary key,
  due_at timestamptz not null default now(), -- an address to upload to may still be good until then
  tried_at timestamptz,
  created_at timestamptz not null default now()
);
create index deleted_objects_due on public.deleted_objects (tried_at nulls first);
alter table public.deleted_objects enable row level security;
revoke all on public.deleted_objects from anon, authenticated, service_role;
create policy "the service reads" on public.deleted_objects for select to service_role using (true);
grant select on public.deleted_objects to service_role;

create function fishserve.give_up_object(p_key text, p_due_at timestamptz default now()) returns void
language sql set search_path = '' as $$
  insert into public.deleted_objects (key, due_at) select p_key, p_due_at where p_key is not null
  on conflict (key) do update set due_at = greatest(deleted_objects.due_at, excluded.due_at)
$$;

-- Keys to delete from the bucket now; those tried longest ago first.
create function public.objects_to_delete(p_limit integer default 100) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select key from public.deleted_objects where due_at <= now()
    order by tried_at nulls first limit greatest(0, least(p_limit, 1000)) for update skip locked
  ), tried as (
    update public.deleted_objects o set tried_at = now() from due where o.key = due.key returning o.key
  )
  select coalesce(jsonb_agg(key), '[]') from tried
$$;

revoke execute on function public.objects_to_delete, fishserve.give_up_object from public, anon, authenticated;
grant execute on function public.objects_to_delete to service_role;

insert into fishserve.migrations (name) values ('20261125000600_objects');

-- 20261125000700_voices.sql

-- Cloned voices: a clip in the bucket and its transcript. A voice is biometric data: deletion takes the transcript and the name at once, the object
-- at once where the bucket can be reached, and the row when the object is gone.

create table public.cloned_voices (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.profiles (id),
  name text check (char_length(name) between 1 and 100),
  transcript text check (char_length(transcript) <= 2000),
  status text not null default 'pending' check (status in ('pending', 'ready', 'refused', 'deleted')),
  object_key text not null unique,
  content_type text not null,
  bytes bigint not null check (bytes > 0),
  seconds numeric,
  sha256 text,
  reason text, -- why it was refused
  consented_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  check (status = 'deleted' or name is not null and transcript is not null)
);
create unique index cloned_voices_name on public.cloned_voices (user_id, lower(name)) where status in ('pending', 'ready');
create index cloned_voices_of_user on public.cloned_voices (user_id, created_at);

alter table public.cloned_voices enable row level security;
revoke all on public.cloned_voices from anon, authenticated, service_role;
create policy "owners read" on public.cloned_voices for select to authenticated using ((select auth.uid()) = user_id);
grant select (id, user_id, name, transcript, status, content_type, bytes, seconds, reason, consented_at, created_at) on public.cloned_voices to authenticated;
grant select on public.cloned_voices to service_role;

create function fishserve.lock_voice(p_user_id uuid, p_voice_id uuid) returns public.cloned_voices
language plpgsql set search_path = '' as $$
declare
  v_voice public.cloned_voices;
begin
  select * into v_voice from public.cloned_voices where id = p_voice_id and user_id = p_user_id and status <> 'deleted' for update;
  if not found then raise sqlstate 'PT404' using message = format('you have no voice %s', p_voice_id); end if;
  return v_voice;
end $$;

create function fishserve.erase_voice(p_voice_id uuid) returns void
language sql set search_path = '' as $$
  with erased as (
    update public.cloned_voices set status = 'deleted', name = null, transcript = null, sha256 = null, reason = null
    where id = p_voice_id returning object_key, created_at
  ) -- its address to upload to is good for minutes
  select fishserve.give_up_object(object_key, greatest(now(), created_at + interval '15 minutes')) from erased
$$;

-- The voice and where its clip is to be put: the key is chosen here.
create function public.create_voice(p_user_id uuid, p_name text, p_transcript text, p_content_type text, p_bytes bigint) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_name text := btrim(p_name);
  v_id uuid := gen_random_uuid();
  v_voice public.cloned_voices;
begin
  perform fishserve.open_profile(p_user_id);
  if coalesce(char_length(v_name), 0) not between 1 and 100 then raise sqlstate 'PT422' using message = 'a voice needs a name of 1 to 100 characters'; end if;
  if char_length(p_transcript) > 2000 then
    raise sqlstate 'PT422' using message = format('the transcript has %s characters; it may have 2000', char_length(p_transcript));
  end if;
  if p_content_type is null or p_bytes is null or p_bytes <= 0 then raise sqlstate 'PT422' using message = 'a voice needs the type and size of its clip'; end if;
  perform fishserve.erase_voice(id) from public.cloned_voices -- never uploaded, or refused a while ago
    where user_id = p_user_id and (status = 'pending' and created_at < now() - interval '1 hour' or status = 'refused' and created_at < now() - interval '1 day');
  if (select count(*) from public.cloned_voices where user_id = p_user_id and status in ('pending', 'ready')) >= 20 then
    raise sqlstate 'PT409' using message = 'you have 20 voices, the most an account may have; delete one first';
  end if;
  insert into public.cloned_voices (id, user_id, name, transcript, object_key, content_type, bytes)
    values (v_id, p_user_id, v_name, coalesce(p_transcript, ''), format('voices/%s/%s', p_user_id, v_id), p_content_type, p_bytes)
    on conflict (user_id, lower(name)) where status in ('pending', 'ready') do nothing returning * into v_voice;
  if not found then raise sqlstate 'PT409' using message = 'you have a voice of that name already'; end if;
  return jsonb_build_object('voice', to_jsonb(v_voice));
end $$;

create function public.confirm_voice(p_user_id uuid, p_voice_id uuid, p_seconds numeric, p_sha256 text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_voice public.cloned_voices := fishserve.lock_voice(p_user_id, p_voice_id);
begin
  if v_voice.status = 'refused' then raise sqlstate 'PT409' using message = format('this voice was refused: %s', v_voice.reason); end if;
  if v_voice.status = 'pending' then
    update public.cloned_voices set status = 'ready', seconds = p_seconds, sha256 = p_sha256 where id = p_voice_id returning * into v_voice;
  end if;
  return jsonb_build_object('voice', to_jsonb(v_voice));
end $$;

create function public.refuse_voice(p_user_id uuid, p_voice_id uuid, p_reason text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_voice public.cloned_voices := fishserve.lock_voice(p_user_id, p_voice_id);
begin
  if v_voice.status = 'ready' then raise sqlstate 'PT409' using message = 'this voice is ready already'; end if;
  update public.cloned_voices set status = 'refused', reason = left(p_reason, 500) where id = p_voice_id returning * into v_voice;
  perform fishserve.give_up_object(v_voice.object_key, greatest(now(), v_voice.created_at + interval '15 minutes'));
  return jsonb_build_object('voice', to_jsonb(v_voice));
end $$;

create function public.rename_voice(p_user_id uuid, p_voice_id uuid, p_name text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_voice public.cloned_voices;
  v_name text := btrim(p_name);
begin
  perform fishserve.open_profile(p_user_id); -- one change of an account's names at a time
  v_voice := fishserve.lock_voice(p_user_id, p_voice_id);
  if coalesce(char_length(v_name), 0) not between 1 and 100 then raise sqlstate 'PT422' using message = 'a voice needs a name of 1 to 100 characters'; end if;
  if exists (select from public.cloned_voices
      where user_id = p_user_id and lower(name) = lower(v_name) and status in ('pending', 'ready') and id <> p_voice_id) then
    raise sqlstate 'PT409' using message = 'you have a voice of that name already';
  end if;
  update public.cloned_voices set name = v_name where id = p_voice_id returning * into v_voice;
  return jsonb_build_object('voice', to_jsonb(v_voice));
end $$;

create function public.delete_voice(p_user_id uuid, p_voice_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_voice public.cloned_voices := fishserve.lock_voice(p_user_id, p_voice_id);
begin
  perform fishserve.erase_voice(p_voice_id);
  return jsonb_build_object('object_key', v_voice.object_key);
end $$;

create function public.list_voices(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(v) order by v.created_at desc), '[]') from public.cloned_voices v where v.user_id = p_user_id and v.status <> 'deleted'
$$;

create function public.get_voice(p_user_id uuid, p_voice_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_voice public.cloned_voices;
begin
  select * into v_voice from public.cloned_voices where id = p_voice_id and user_id = p_user_id and status <> 'deleted';
  if not found then raise sqlstate 'PT404' using message = format('you have no voice %s', p_voice_id); end if;
  return jsonb_build_object('voice', to_jsonb(v_voice));
end $$;

-- The bucket has deleted it. One that could still be uploaded to stays on the list.
create function public.object_deleted(p_key text) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  delete from public.deleted_objects where key = p_key and due_at <= now();
  if found then delete from public.cloned_voices where object_key = p_key and status = 'deleted'; end if;
  return jsonb_build_object('key', p_key);
end $$;

revoke execute on function public.create_voice, public.confirm_voice, public.refuse_voice, public.rename_voice, public.delete_voice, public.list_voices,
  public.get_voice, public.object_deleted, fishserve.lock_voice, fishserve.erase_voice from public, anon, authenticated;
grant execute on function public.create_voice, public.confirm_voice, public.refuse_voice, public.rename_voice, public.delete_voice, public.list_voices,
  public.get_voice, public.object_deleted to service_role;

insert into fishserve.migrations (name) values ('20261125000700_voices');

-- 20261125000800_api_keys.sql

-- Keys for programs. The database holds a prefix to find one by and the SHA-256 of the secret, which no client may read.

create table public.api_keys (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.profiles (id),
  name text not null check (char_length(name) between 1 and 100),
  prefix text not null unique,
  hash text not null check (hash ~ '^[0-9a-f]{64}$'),
  scopes text[] not null,
  last_used_at timestamptz,
  revoked_at timestamptz,
  created_at timestamptz not null default now()
);
create index api_keys_of_user on public.api_keys (user_id, created_at);

alter table public.api_keys enable row level security;
revoke all on public.api_keys from anon, authenticated, service_role;
create policy "owners read" on public.api_keys for select to authenticated using ((select auth.uid()) = user_id);
grant select (id, user_id, name, prefix, scopes, last_used_at, revoked_at, created_at) on public.api_keys to authenticated;
grant select on public.api_keys to service_role;

create function public.create_api_key(p_user_id uuid, p_name text, p_prefix text, p_hash text, p_scopes text[]) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_name text := btrim(p_name);
  v_key public.api_keys;
begin
  perform fishserve.open_profile(p_user_id);
  if coalesce(char_length(v_name), 0) not between 1 and 100 then raise sqlstate 'PT422' using message = 'a key needs a name of 1 to 100 characters'; end if;
  if coalesce(cardinality(p_scopes), 0) = 0 or not p_scopes <@ array['speak', 'voices', 'read'] then
    raise sqlstate 'PT422' using message = 'a key needs scopes out of speak, voices and read';
  end if;
  if (select count(*) from public.api_keys where user_id = p_user_id and revoked_at is null) >= 20 then
    raise sqlstate 'PT409' using message = 'you have 20 keys, the most an account may have; revoke one first';
  end if;
  insert into public.api_keys (user_id, name, prefix, hash, scopes) values (p_user_id, v_name, p_prefix, p_hash, p_scopes) returning * into v_key;
  return jsonb_build_object('key', to_jsonb(v_key) - 'hash');
end $$;

create function public.list_api_keys(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(k) - 'hash' order by k.created_at desc), '[]') from public.api_keys k where k.user_id = p_user_id and k.revoked_at is null
$$;

create function public.revoke_api_key(p_user_id uuid, p_key_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_key public.api_keys;
begin
  update public.api_keys set revoked_at = coalesce(revoked_at, now()) where id = p_key_id and user_id = p_user_id returning * into v_key;
  if not found then raise sqlstate 'PT404' using message = format('you have no key %s', p_key_id); end if;
  return jsonb_build_object('key', to_jsonb(v_key) - 'hash');
end $$;

create function public.authenticate_api_key(p_prefix text, p_hash text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_key public.api_keys;
  v_plan text;
begin
  select k.* into v_key from public.api_keys k where k.prefix = p_prefix and k.hash = p_hash;
  if not found then raise sqlstate 'PT401' using message = 'this API key is not known'; end if;
  if v_key.revoked_at is not null then raise sqlstate 'PT401' using message = 'this API key was revoked'; end if;
  select plan into v_plan from public.profiles where id = v_key.user_id and closed_at is null;
  if not found then raise sqlstate 'PT401' using message = 'the account of this API key was closed'; end if;
  if exists (select from auth.users where id = v_key.user_id and banned_until > now()) then
    raise sqlstate 'PT401' using message = 'the account of this API key is suspended';
  end if;
  update public.api_keys set last_used_at = now() -- to the minute: a busy key is not a row written a hundred times a second
    where id = v_key.id and (last_used_at is null or last_used_at < now() - interval '1 minute');
  return jsonb_build_object('user_id', v_key.user_id, 'key_id', v_key.id, 'scopes', to_jsonb(v_key.scopes), 'plan', v_plan);
end $$;

revoke execute on function public.create_api_key, public.list_api_keys, public.revoke_api_key, public.authenticate_api_key from public, anon, authenticated;
grant execute on function public.create_api_key, public.list_api_keys, public.revoke_api_key, public.authenticate_api_key to service_role;

insert into fishserve.migrations (name) values ('20261125000800_api_keys');

-- 20261125000900_jobs.sql

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

-- 20261125001000_payments.sql

-- Stripe's events, applied once each and in any order of arrival. A payment is remembered by what is known of it so far (bought, share refunded,
-- disputed, dispute won); after every event the credits taken back are brought to what that state says, so the order cannot matter.

create table public.stripe_events (
  id text primary key,
  type text not null,
  created_at timestamptz not null default now()
);

create table public.payments (
  reference text primary key, -- Stripe's payment intent
  user_id uuid references public.profiles (id), -- null until the purchase has come
  credits bigint check (credits > 0),
  refunded numeric not null default 0 check (refunded between 0 and 1), -- share of the money
  disputed numeric not null default 0 check (disputed between 0 and 1),
  reinstated boolean not null default false, -- the dispute was won, which is final
  taken bigint not null default 0, -- credits taken back so far, as debt too
  receipt_url text,
  created_at timestamptz not null default now(),
  check ((user_id is null) = (credits is null))
);
create index payments_of_user on public.payments (user_id);

alter table public.stripe_events enable row level security;
alter table public.payments enable row level security;
revoke all on public.stripe_events, public.payments from anon, authenticated, service_role;
create policy "the service reads" on public.stripe_events for select to service_role using (true);
create policy "owners read" on public.payments for select to authenticated using ((select auth.uid()) = user_id);
grant select on public.payments to authenticated;
grant select on public.stripe_events, public.payments to service_role;

-- kind: purchase (user_id, credits), refund or dispute (share: how much of the money, in all, up to now), reinstate (a dispute that was won),
-- or null for an event that moves no credits and is to be remembered only. {applied, balance}; balance is null where no purchase is known yet.
create function public.apply_stripe_event(
  p_event_id text, p_type text, p_user_id uuid default null, p_credits bigint default null, p_reference text default null, p_kind text default null,
  p_receipt_url text default null, p_share numeric default 1, p_customer text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_payment public.payments;
  v_owed bigint;
  v_take bigint;
  v_profile public.profiles;
begin
  if p_kind not in ('purchase', 'refund', 'dispute', 'reinstate') then
    raise sqlstate 'PT422' using message = format('an event is a purchase, refund, dispute or reinstate, not a %s', p_kind);
  end if;
  if p_kind is not null and p_reference is null then raise sqlstate 'PT422' using message = format('a %s needs the payment it is of', p_kind); end if;
  if p_kind = 'purchase' and (p_user_id is null or p_credits is null or p_credits <= 0) then
    raise sqlstate 'PT422' using message = format('a purchase needs a user and credits, not %s', coalesce(p_credits::text, 'none'));
  end if;
  if p_share is null or not p_share between 0 and 1 then raise sqlstate 'PT422' using message = format('a share is 0 to 1, not %s', p_share); end if;

  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found or p_kind is null then
    select p.* into v_profile from public.profiles p
      where p.id = coalesce((select user_id from public.payments where reference = p_reference), p_user_id);
    return jsonb_build_object('applied', false, 'balance', v_profile.balance);
  end if;

  -- Events of one payment queue here; then the profile is locked, as always before credits move.
  insert into public.payments (reference) values (p_reference) on conflict do nothing;
  select * into v_payment from public.payments where reference = p_reference for update;
  if p_kind = 'purchase' and v_payment.user_id is null then
    perform fishserve.lock_profile(p_user_id);
    perform fishserve.post(p_user_id, 'purchase', p_credits, null, p_reference);
    update public.profiles set stripe_customer = coalesce(p_customer, stripe_customer) where id = p_user_id and closed_at is null;
    update public.payments set user_id = p_user_id, credits = p_credits where reference = p_reference;
  end if;
  update public.payments set
    refunded = case p_kind when 'refund' then greatest(refunded, p_share) else refunded end,
    disputed = case p_kind when 'dispute' then greatest(disputed, p_share) else disputed end,
    reinstated = reinstated or p_kind = 'reinstate',
    receipt_url = coalesce(p_receipt_url, receipt_url)
    where reference = p_reference returning * into v_payment;
  if v_payment.user_id is null then return jsonb_build_object('applied', true, 'balance', null); end if;

  v_profile := fishserve.lock_profile(v_payment.user_id);
  v_owed := ceil(v_payment.credits * least(1, v_payment.refunded + case when v_payment.reinstated then 0 else v_payment.disputed end));
  v_take := v_owed - v_payment.taken;
  if v_take > 0 then
    update public.profiles set debt = debt + v_take - least(v_take, v_profile.balance) where id = v_profile.id;
    perform fishserve.post(v_profile.id, 'chargeback', -least(v_take, v_profile.balance), null, p_event_id);
  elsif v_take < 0 then
    perform fishserve.post(v_profile.id, 'adjust', -v_take, null, p_event_id);
  end if;
  update public.payments set taken = v_owed where reference = p_reference;
  return jsonb_build_object('applied', true, 'balance', fishserve.balance_of(v_profile.id));
end $$;

-- Entries of the ledger, newest first, a purchase with its receipt; `before` is the id of the last one seen.
create function public.ledger(p_user_id uuid, p_before bigint default null, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('receipt_url', p.receipt_url) order by t.id desc), '[]') from (
    select * from public.transactions where user_id = p_user_id and (p_before is null or id < p_before)
    order by id desc limit greatest(0, least(coalesce(p_limit, 50), 200))
  ) t left join public.payments p on t.kind = 'purchase' and p.reference = t.reference
$$;

revoke execute on function public.apply_stripe_event, public.ledger from public, anon, authenticated;
grant execute on function public.apply_stripe_event, public.ledger to service_role;

insert into fishserve.migrations (name) values ('20261125001000_payments');

-- 20261125001100_accounts.sql

-- Closing an account: running jobs end and are refunded, all that is personal goes, and the ledger stays without a name on it.

-- {object_keys}: what the bucket is to delete, which is on the list of objects_to_delete, too. Closing twice is closing once.
create function public.close_account(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_keys jsonb;
begin
  perform from public.payments where user_id = p_user_id order by reference for update; -- before the profile, as Stripe's events do
  perform fishserve.lock_profile(p_user_id);
  for v_id in select id from public.jobs where user_id = p_user_id and status in ('queued', 'running') loop
    perform public.refund_job(v_id, 'cancelled', 'the account was closed');
  end loop;
  select coalesce(jsonb_agg(object_key), '[]') into v_keys from (
    select object_key from public.jobs where user_id = p_user_id and object_key is not null
    union all select object_key from public.cloned_voices where user_id = p_user_id
  ) o;
  perform fishserve.give_up_object(object_key) from public.jobs where user_id = p_user_id;
  perform fishserve.erase_voice(id) from public.cloned_voices where user_id = p_user_id and status <> 'deleted';
  update public.jobs set text = null, options = '{}', error = null, sha256 = null, object_key = null, api_key_id = null,
    idempotency_key = id::text, fingerprint = '', deleted_at = coalesce(deleted_at, now()) where user_id = p_user_id;
  delete from public.api_keys where user_id = p_user_id;
  delete from public.usage where user_id = p_user_id;
  update public.payments set receipt_url = null where user_id = p_user_id;
  update public.profiles set email = null, display_name = null, stripe_customer = null, closed_at = coalesce(closed_at, now()) where id = p_user_id;
  delete from auth.users where id = p_user_id; -- the sign-in goes, too; the trigger below then closes what is closed already
  return jsonb_build_object('object_keys', v_keys);
end $$;

-- A user deleted in Supabase closes the account, or is not deleted: keys of an account without a user must not go on working.
create function fishserve.user_deleted() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if exists (select from public.profiles where id = old.id) then perform public.close_account(old.id); end if;
  return null;
end $$;
create trigger fishserve_user_deleted after delete on auth.users for each row execute function fishserve.user_deleted();
create trigger fishserve_user_soft_deleted after update of deleted_at on auth.users for each row
  when (new.deleted_at is not null and old.deleted_at is null) execute function fishserve.user_deleted();

revoke execute on function public.close_account, fishserve.user_deleted from public, anon, authenticated;
grant execute on function public.close_account to service_role;

insert into fishserve.migrations (name) values ('20261125001100_accounts');

-- 20261125001200_health.sql

-- What /readyz and `fishserve saas check` look at.

-- {schema_version, rls_ok, definer_ok, unprotected}: the last names tables without row level security, and functions that run with the owner's
-- rights while a client may call them or their search_path is open.
create function public.health() returns jsonb
language sql stable security definer set search_path = '' as $$
  with tables as (
    select c.relname as name from pg_catalog.pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
  ), functions as (
    select p.proname as name from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.prosecdef and (
      not coalesce(p.proconfig, '{}') @> array['search_path=""']
      or has_function_privilege('anon', p.oid, 'execute') or has_function_privilege('authenticated', p.oid, 'execute'))
  )
  select jsonb_build_object(
    'schema_version', (select max(name) from fishserve.migrations),
    'rls_ok', not exists (select from tables),
    'definer_ok', not exists (select from functions),
    'unprotected', (select coalesce(jsonb_agg(name order by name), '[]') from (select name from tables union all select name from functions) u))
$$;

revoke execute on function public.health from public, anon, authenticated;
grant execute on function public.health to service_role;

insert into fishserve.migrations (name) values ('20261125001200_health');

-- 20261126000100_checksums.sql

-- Which text each migration had when it was applied, so that a database of another revision is noticed.
-- From here on the files of this folder are never edited: a change is a new file.

alter table fishserve.migrations add column sha256 text;

-- {name: sha256} of every migration, null where it was applied by hand without its checksum.
create function public.applied_migrations() returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_object_agg(name, sha256), '{}') from fishserve.migrations
$$;

-- The profile of an address: {id, email, balance}, or null. For the administrator's command `fishserve saas grant`.
create function public.find_profile(p_email text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('id', id, 'email', email, 'balance', balance) from public.profiles
  where lower(email) = lower(btrim(p_email)) and closed_at is null
$$;

revoke execute on function public.applied_migrations, public.find_profile from public, anon, authenticated;
grant execute on function public.applied_migrations, public.find_profile to service_role;

insert into fishserve.migrations (name) values ('20261126000100_checksums');

-- 20261126000200_fair_jobs.sql

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

-- 20261126000300_prices.sql

-- A price is never changed: jobs that were sold at it are charged by it. Another price is another row, which set_price adds.

create function fishserve.keep_prices() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op <> 'UPDATE' or to_jsonb(new) - 'active' <> to_jsonb(old) - 'active' then
    raise exception 'a price is kept as it was sold: add another one with select public.set_price(12)';
  end if;
  return new;
end $$;
create trigger keep_prices before update or delete on public.prices for each row execute function fishserve.keep_prices();
create trigger keep_all_prices before truncate on public.prices for each statement execute function fishserve.keep_prices();

-- The price of what is sold from now on: the price row. What is null stays as it is in the active price.
create function public.set_price(p_credits_per_second numeric, p_minimum bigint default null, p_characters_per_second numeric default null, p_name text default null)
returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_old public.prices;
  v_new public.prices;
begin
  if p_credits_per_second is null or not p_credits_per_second between 0 and 1000000 then
    raise sqlstate 'PT422' using message = format('a second costs 0 to 1,000,000 credits, not %s', coalesce(p_credits_per_second::text, 'null'));
  end if;
  if p_minimum < 0 or p_characters_per_second <= 0 then
    raise sqlstate 'PT422' using message = format('the minimum is %s and a second has %s characters; neither may be less than 0', p_minimum, p_characters_per_second);
  end if;
  lock table public.prices in share row exclusive mode; -- two prices are set one after the other
  update public.prices set active = false where active returning * into v_old;
  insert into public.prices (name, credits_per_second, minimum, characters_per_second, active) values (
    coalesce(p_name, v_old.name, 'standard'), p_credits_per_second, coalesce(p_minimum, v_old.minimum, 0), coalesce(p_characters_per_second, v_old.characters_per_second, 13), true)
    returning * into v_new;
  return to_jsonb(v_new);
end $$;

revoke insert, update on public.prices from service_role;
revoke execute on all functions in schema fishserve from public;
revoke execute on function public.set_price from public, anon, authenticated;
grant execute on function public.set_price to service_role;

insert into fishserve.migrations (name) values ('20261126000300_prices');

-- 20261126000400_sign_up_grant.sql

-- The credits of a new account: once for each address, for ever, and only when the address is confirmed. An anonymous user has no address.

-- Hashes of the addresses that were granted credits, which stay when the account is closed. Two secret keys of this database go into each hash, as in
-- HMAC, so that nobody finds an address by hashing a list of them without having both tables.
create table fishserve.grant_keys (
  only_row boolean primary key default true check (only_row),
  inner_key bytea not null,
  outer_key bytea not null
);
create table fishserve.granted_addresses (
  hash text primary key,
  created_at timestamptz not null default now()
);
alter table fishserve.grant_keys enable row level security;
alter table fishserve.granted_addresses enable row level security;
create policy "the owner alone" on fishserve.grant_keys for select using (false);
create policy "the owner alone" on fishserve.granted_addresses for select using (false);

create function fishserve.random_key() returns bytea -- 64 bytes, 488 bits of them random: a block of SHA-256
language sql volatile set search_path = '' as $$
  select decode(string_agg(replace(gen_random_uuid()::text, '-', ''), ''), 'hex') from generate_series(1, 4)
$$;
insert into fishserve.grant_keys (inner_key, outer_key) values (fishserve.random_key(), fishserve.random_key());

-- An address as its mailbox is known: without case, without what follows a plus, and at Gmail without dots. Null where it is no address.
create function fishserve.normal_address(p_email text) returns text
language sql immutable set search_path = '' as $$
  select case when domain in ('gmail.com', 'googlemail.com') then replace(name, '.', '') || '@gmail.com' else name || '@' || domain end
  from (select split_part(split_part(lower(btrim(p_email)), '@', 1), '+', 1) as name, rtrim(split_part(lower(btrim(p_email)), '@', 2), '.') as domain) a
  where name <> '' and domain <> ''
$$;

create function fishserve.address_hash(p_email text) returns text
language sql stable set search_path = '' as $$
  select encode(sha256(outer_key || sha256(inner_key || convert_to(fishserve.normal_address(p_email), 'UTF8'))), 'hex') from fishserve.grant_keys
$$;

insert into fishserve.granted_addresses (hash)
  select distinct fishserve.address_hash(p.email) from public.profiles p join public.transactions t on t.user_id = p.id
  where t.kind = 'grant' and t.reference = 'sign-up' and fishserve.normal_address(p.email) is not null;

-- Gives a confirmed user what settings grant at sign-up, unless the user or the address has had it. A profile is there.
create function fishserve.grant_sign_up(p_user_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  v_user auth.users;
  v_grant bigint;
begin
  select * into v_user from auth.users where id = p_user_id;
  if not found or v_user.email_confirmed_at is null or coalesce((to_jsonb(v_user) ->> 'is_anonymous')::boolean, false)
    or fishserve.normal_address(v_user.email) is null then
    return;
  end if;
  select grant_on_sign_up into v_grant from public.settings;
  perform from public.profiles where id = p_user_id and closed_at is null for no key update;
  if not found or v_grant <= 0 or exists (select from public.transactions where user_id = p_user_id and kind = 'grant' and reference = 'sign-up') then
    return;
  end if;
  insert into fishserve.granted_addresses (hash) values (fishserve.address_hash(v_user.email)) on conflict do nothing;
  if found then perform fishserve.post(p_user_id, 'grant', v_grant, null, 'sign-up'); end if;
end $$;

create or replace function fishserve.ensure_profile(p_user_id uuid) returns void
language plpgsql set search_path = '' as $$
begin
  insert into public.profiles (id, email) select u.id, u.email from auth.users u where u.id = p_user_id on conflict do nothing;
  if found then perform fishserve.grant_sign_up(p_user_id); end if;
end $$;

create function fishserve.user_confirmed() returns trigger
language plpgsql security definer set search_path = '' set lock_timeout = '1s' as $$
begin
  perform fishserve.ensure_profile(new.id);
  perform fishserve.grant_sign_up(new.id);
  return new;
exception when others then
  raise warning 'no credits were granted at sign-up: % (%)', sqlerrm, sqlstate;
  return new;
end $$;
create trigger fishserve_user_confirmed after update of email_confirmed_at on auth.users for each row
  when (old.email_confirmed_at is null and new.email_confirmed_at is not null) execute function fishserve.user_confirmed();

revoke all on fishserve.grant_keys, fishserve.granted_addresses from public, anon, authenticated, service_role;
revoke execute on all functions in schema fishserve from public;

insert into fishserve.migrations (name) values ('20261126000400_sign_up_grant');

-- 20261126000500_money.sql

-- Payments in money: what was paid, and each refund and each dispute by itself, so that part of the money takes part of the credits.

alter table public.payments
  add column amount_cents bigint check (amount_cents > 0), -- what was paid, in the currency's smallest unit
  add column currency text check (currency ~ '^[a-z]{3}$'),
  add column pack text,
  add column stated_cents bigint not null default 0 check (stated_cents >= 0); -- the largest sum of refunds that Stripe has stated

-- A refund or a dispute of a payment, by Stripe's id (re_..., dp_...). `undone`: the refund failed, the dispute was won; that is final.
create table public.payment_returns (
  id text primary key,
  reference text not null references public.payments (reference),
  kind text not null check (kind in ('refund', 'dispute')),
  cents bigint not null check (cents >= 0),
  undone boolean not null default false,
  created_at timestamptz not null default now()
);
create index payment_returns_of_payment on public.payment_returns (reference);
alter table public.payment_returns enable row level security;
revoke all on public.payment_returns from anon, authenticated, service_role;
create policy "the service reads" on public.payment_returns for select to service_role using (true);
grant select on public.payment_returns to service_role;

-- What was known as shares. A payment whose pack is no longer for sale counts a credit as a cent.
update public.payments p set
  amount_cents = coalesce((select min(k.amount_cents) from public.packs k where k.credits = p.credits), p.credits),
  currency = (select min(k.currency) from public.packs k where k.credits = p.credits)
  where p.credits is not null;
update public.payments set stated_cents = round(refunded * amount_cents) where credits is not null;
insert into public.payment_returns (id, reference, kind, cents, undone)
  select 'before ' || reference, reference, 'dispute', round(disputed * amount_cents), reinstated from public.payments where credits is not null and disputed > 0;
alter table public.payments drop column refunded, drop column disputed, drop column reinstated;
alter table public.payments add constraint payments_bought check ((credits is null) = (amount_cents is null));

-- The credits that are to be taken back of a payment: as large a part as went back of the money.
create function fishserve.credits_owed(p_payment public.payments) returns bigint
language sql stable set search_path = '' as $$
  select ceil(p_payment.credits * least(p_payment.amount_cents,
      -- Stripe states a sum, and tells of each refund; either may be late, and a refund that failed may be in the sum.
      greatest(coalesce(sum(cents) filter (where kind = 'refund' and not undone), 0),
        p_payment.stated_cents - coalesce(sum(cents) filter (where kind = 'refund' and undone), 0))
      + coalesce(sum(cents) filter (where kind = 'dispute' and not undone), 0)
    ) / p_payment.amount_cents)::bigint
  from public.payment_returns where reference = p_payment.reference
$$;

-- kind: purchase (user_id, credits, cents, currency, pack); refund and refund_failed (object: the refund's id; or, without it, cents: all that was
-- refunded up to now); dispute and reinstate (object: the dispute's id); null for an event that moves no credits and is to be remembered only.
-- cents null: all of the payment; for a purchase, a cent a credit. {applied, balance, closed}: balance is null where no purchase is known yet, and
-- closed is true where the account that it belongs to was closed.
drop function public.apply_stripe_event;
create function public.apply_stripe_event(
  p_event_id text, p_type text, p_user_id uuid default null, p_credits bigint default null, p_reference text default null, p_kind text default null,
  p_receipt_url text default null, p_customer text default null, p_cents bigint default null, p_currency text default null, p_pack text default null,
  p_object text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_payment public.payments;
  v_cents bigint := coalesce(p_cents, 1000000000000);
  v_owed bigint;
  v_take bigint;
  v_profile public.profiles;
begin
  if p_kind not in ('purchase', 'refund', 'refund_failed', 'dispute', 'reinstate') then
    raise sqlstate 'PT422' using message = format('an event is a purchase, refund, refund_failed, dispute or reinstate, not a %s', p_kind);
  end if;
  if p_kind is not null and p_reference is null then raise sqlstate 'PT422' using message = format('a %s needs the payment it is of', p_kind); end if;
  if p_kind = 'purchase' and (p_user_id is null or p_credits is null or p_credits <= 0) then
    raise sqlstate 'PT422' using message = format('a purchase needs a user and credits, not %s', coalesce(p_credits::text, 'none'));
  end if;
  if p_cents < 0 or p_kind = 'purchase' and p_cents = 0 then raise sqlstate 'PT422' using message = format('%s cents are no amount of money', p_cents); end if;
  if p_kind = 'refund_failed' and p_object is null then raise sqlstate 'PT422' using message = 'a refund that failed needs its id'; end if;

  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found or p_kind is null then
    select p.* into v_profile from public.profiles p
      where p.id = coalesce((select user_id from public.payments where reference = p_reference), p_user_id);
    return jsonb_build_object('applied', false, 'balance', v_profile.balance, 'closed', v_profile.closed_at is not null);
  end if;

  -- Events of one payment queue here; then the profile is locked, as always before credits move.
  insert into public.payments (reference) values (p_reference) on conflict do nothing;
  select * into v_payment from public.payments where reference = p_reference for update;
  if p_kind = 'purchase' and v_payment.user_id is null then
    perform fishserve.lock_profile(p_user_id);
    perform fishserve.post(p_user_id, 'purchase', p_credits, null, p_reference);
    update public.profiles set stripe_customer = coalesce(p_customer, stripe_customer) where id = p_user_id and closed_at is null;
    update public.payments set user_id = p_user_id, credits = p_credits, amount_cents = coalesce(p_cents, p_credits), currency = p_currency, pack = p_pack
      where reference = p_reference;
  elsif p_kind = 'refund' and p_object is null then
    update public.payments set stated_cents = greatest(stated_cents, v_cents) where reference = p_reference;
  elsif p_kind <> 'purchase' then
    if p_kind in ('dispute', 'reinstate') then -- the one that was known before disputes had ids
      update public.payment_returns set id = coalesce(p_object, 'dispute of ' || p_reference) where id = 'before ' || p_reference;
    end if;
    insert into public.payment_returns as r (id, reference, kind, cents, undone) values (
      coalesce(p_object, 'dispute of ' || p_reference), p_reference, case when p_kind in ('refund', 'refund_failed') then 'refund' else 'dispute' end,
      v_cents, p_kind in ('refund_failed', 'reinstate'))
      on conflict (id) do update set undone = r.undone or excluded.undone, cents = greatest(r.cents, excluded.cents);
  end if;
  update public.payments set receipt_url = coalesce(p_receipt_url, receipt_url) where reference = p_reference returning * into v_payment;
  if v_payment.user_id is null then return jsonb_build_object('applied', true, 'balance', null, 'closed', false); end if;

  v_profile := fishserve.lock_profile(v_payment.user_id);
  v_owed := fishserve.credits_owed(v_payment);
  v_take := v_owed - v_payment.taken;
  if v_take > 0 then
    update public.profiles set debt = debt + v_take - least(v_take, v_profile.balance) where id = v_profile.id;
    perform fishserve.post(v_profile.id, 'chargeback', -least(v_take, v_profile.balance), null, p_event_id);
  elsif v_take < 0 then
    perform fishserve.post(v_profile.id, 'adjust', -v_take, null, p_event_id);
  end if;
  update public.payments set taken = v_owed where reference = p_reference;
  return jsonb_build_object('applied', true, 'balance', fishserve.balance_of(v_profile.id), 'closed', v_profile.closed_at is not null);
end $$;

-- Who may buy: {customer}, Stripe's, null before the first purchase. A closed or suspended account may not.
create function public.buyer(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.open_profile(p_user_id);
begin
  return jsonb_build_object('customer', v_profile.stripe_customer);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.apply_stripe_event, public.buyer from public, anon, authenticated;
grant execute on function public.apply_stripe_event, public.buyer to service_role;

insert into fishserve.migrations (name) values ('20261126000500_money');

-- 20261127000100_plans.sql

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

-- 20261127000200_lots.sql

-- Lots: the balance of a user, divided by when its credits end. An entry of the ledger that brings credits makes a lot; one that takes them draws on
-- lots that end soonest, and of those that end together on granted ones before bought ones. What a reservation did not need goes back to the lots it
-- came from, the longest-lived first. The trigger below keeps all of it in the statement that inserts the entry; audit_ledger() looks it over.

create table public.credit_lots (
  id bigint generated always as identity primary key,
  user_id uuid not null references public.profiles (id),
  reference text not null, -- of the entry that brought it
  bought boolean not null,
  expires_at timestamptz, -- null: never
  opening bigint not null default 0, -- what it held when lots were first recorded
  remaining bigint not null check (remaining >= 0),
  created_at timestamptz not null default now()
);
create index credit_lots_of_user on public.credit_lots (user_id, expires_at) where remaining > 0;
create index credit_lots_by_reference on public.credit_lots (user_id, reference);
create index credit_lots_to_expire on public.credit_lots (expires_at) where remaining > 0 and expires_at is not null;

create table public.lot_moves (
  entry_id bigint not null references public.transactions (id),
  lot_id bigint not null references public.credit_lots (id),
  amount bigint not null,
  primary key (entry_id, lot_id)
);
create index lot_moves_of_lot on public.lot_moves (lot_id);

alter table public.credit_lots enable row level security;
alter table public.lot_moves enable row level security;
revoke all on public.credit_lots, public.lot_moves from anon, authenticated, service_role;
create policy "owners read" on public.credit_lots for select to authenticated using ((select auth.uid()) = user_id);
create policy "the service reads" on public.credit_lots for select to service_role using (true);
create policy "the service reads" on public.lot_moves for select to service_role using (true);
grant select on public.credit_lots to authenticated, service_role;
grant select on public.lot_moves to service_role;

alter table public.transactions
  add column lot text, -- whose credits a chargeback takes first, and where they go when it is undone: the reference of a lot
  add column expires_at timestamptz, -- when the credits that it brings end; null: never
  drop constraint transactions_sign,
  add constraint transactions_sign check (case kind
    when 'purchase' then amount > 0
    when 'grant' then amount > 0
    when 'reserve' then amount <= 0 -- the estimate
    when 'settle' then amount >= 0 -- what the estimate was too much
    when 'refund' then amount >= 0 -- all of it
    when 'chargeback' then amount <= 0 -- a payment that was refunded or disputed
    when 'expire' then amount < 0 -- credits whose time is over
    when 'adjust' then true -- debt repaid, a dispute won, a plan changed to a smaller one, a correction by hand
    else false end);

-- What users have now lasts for ever. Jobs that are under way have reserved from it.
insert into public.credit_lots (user_id, reference, bought, opening, remaining)
  select p.id, 'opening', true, p.balance + coalesce(r.reserved, 0), p.balance from public.profiles p
  left join (select user_id, sum(reserved)::bigint as reserved from public.jobs where finished_at is null group by user_id) r on r.user_id = p.id
  where p.balance > 0 or r.reserved > 0;
insert into public.lot_moves (entry_id, lot_id, amount)
  select t.id, l.id, t.amount from public.transactions t join public.jobs j on j.id = t.job_id join public.credit_lots l on l.user_id = t.user_id
  where t.kind = 'reserve' and j.finished_at is null and t.amount < 0;

create function fishserve.move_credits(p_entry_id bigint, p_lot_id bigint, p_amount bigint) returns void
language sql set search_path = '' as $$
  update public.credit_lots set remaining = remaining + p_amount where id = p_lot_id;
  insert into public.lot_moves (entry_id, lot_id, amount) values (p_entry_id, p_lot_id, p_amount);
$$;

create function fishserve.apply_to_lots() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_left bigint := abs(new.amount);
  v_part bigint;
  v_lot record;
begin
  if new.amount < 0 then
    for v_lot in
      select id, remaining as most from public.credit_lots where user_id = new.user_id and remaining > 0
      order by (reference = new.lot) desc nulls last, expires_at nulls last, bought, id
    loop
      exit when v_left = 0;
      v_part := least(v_left, v_lot.most);
      perform fishserve.move_credits(new.id, v_lot.id, -v_part);
      v_left := v_left - v_part;
    end loop;
  elsif new.kind in ('settle', 'refund') then
    for v_lot in
      select l.id, -m.amount as most from public.transactions t join public.lot_moves m on m.entry_id = t.id join public.credit_lots l on l.id = m.lot_id
      where t.job_id = new.job_id and t.kind = 'reserve'
      order by l.expires_at desc nulls first, l.bought desc, l.id desc
    loop
      exit when v_left = 0;
      v_part := least(v_left, v_lot.most);
      perform fishserve.move_credits(new.id, v_lot.id, v_part);
      v_left := v_left - v_part;
    end loop;
  elsif new.amount > 0 then
    select id into v_lot from public.credit_lots where user_id = new.user_id and reference = new.lot order by id limit 1;
    if not found then
      insert into public.credit_lots (user_id, reference, bought, expires_at, remaining)
        values (new.user_id, new.reference, new.kind = 'purchase' or new.lot is not null, new.expires_at, 0) returning id into v_lot;
    end if;
    perform fishserve.move_credits(new.id, v_lot.id, v_left);
    v_left := 0;
  end if;
  if v_left <> 0 then raise exception 'the lots of user % lack % credits of an entry', new.user_id, v_left; end if;
  return null;
end $$;
create trigger apply_to_lots after insert on public.transactions for each row execute function fishserve.apply_to_lots();

-- Writes an entry of a locked profile and answers the balance; credits that come in repay debt first. p_lot and p_expires_at: as in the ledger.
drop function fishserve.post;
create function fishserve.post(p_user_id uuid, p_kind text, p_amount bigint, p_job_id uuid, p_reference text, p_lot text default null,
  p_expires_at timestamptz default null) returns bigint
language plpgsql set search_path = '' as $$
declare
  v_balance bigint;
  v_repaid bigint;
begin
  insert into public.transactions (user_id, kind, amount, balance_after, job_id, reference, lot, expires_at)
    values (p_user_id, p_kind, p_amount, 0, p_job_id, p_reference, p_lot, p_expires_at) returning balance_after into v_balance;
  if p_amount > 0 then
    select least(debt, v_balance) into v_repaid from public.profiles where id = p_user_id;
    if v_repaid > 0 then
      update public.profiles set debt = debt - v_repaid where id = p_user_id;
      insert into public.transactions (user_id, kind, amount, balance_after, reference)
        values (p_user_id, 'adjust', -v_repaid, 0, 'debt:' || p_kind || ':' || p_reference) returning balance_after into v_balance;
    end if;
  end if;
  return v_balance;
end $$;

-- Locks a profile, and first takes the credits whose time is over: whoever spends or takes credits comes through here.
create or replace function fishserve.lock_profile(p_user_id uuid) returns public.profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.profiles;
  v_over bigint;
begin
  select * into v_profile from public.profiles where id = p_user_id for no key update;
  if not found then
    perform fishserve.ensure_profile(p_user_id);
    select * into v_profile from public.profiles where id = p_user_id for no key update;
    if not found then raise sqlstate 'PT404' using message = format('no user has the id %s', p_user_id); end if;
  end if;
  select sum(remaining) into v_over from public.credit_lots where user_id = p_user_id and remaining > 0 and expires_at <= now();
  if v_over > 0 then
    v_profile.balance := fishserve.post(p_user_id, 'expire', -v_over, null,
      'after ' || (select max(id) from public.transactions where user_id = p_user_id)); -- the lots that end first are those that are over
  end if;
  return v_profile;
end $$;

-- Gives credits, once a kind and reference: {balance, applied}. With kind 'adjust' the number may be negative. Those with an end are spent first.
drop function public.grant_credits;
create function public.grant_credits(p_user_id uuid, p_credits bigint, p_reference text, p_kind text default 'grant',
  p_expires_at timestamptz default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.lock_profile(p_user_id);
begin
  if p_kind is null or p_kind not in ('grant', 'adjust') then
    raise sqlstate 'PT422' using message = format('credits are given as grant or adjust, not as %s', coalesce(p_kind, 'null'));
  end if;
  if p_reference is null or btrim(p_reference) = '' then raise sqlstate 'PT422' using message = 'a grant needs a reference: it is given once a reference'; end if;
  if exists (select from public.transactions where user_id = p_user_id and kind = p_kind and reference = p_reference) then
    return jsonb_build_object('balance', v_profile.balance, 'applied', false);
  end if;
  if p_credits is null or p_credits = 0 or p_credits < 0 and p_kind = 'grant' then
    raise sqlstate 'PT422' using message = format('%s credits cannot be given', coalesce(p_credits::text, 'no'));
  end if;
  if p_expires_at <= now() or p_credits < 0 and p_expires_at is not null then
    raise sqlstate 'PT422' using message = format('%s credits cannot end at %s: a grant ends later than now', p_credits, p_expires_at);
  end if;
  if v_profile.balance + p_credits < 0 then
    raise sqlstate 'PT402' using message = format('the balance is %s; %s cannot be taken', v_profile.balance, -p_credits);
  end if;
  return jsonb_build_object('balance', fishserve.post(p_user_id, p_kind, p_credits, null, p_reference, null, p_expires_at), 'applied', true);
end $$;

-- The sweeper: takes the credits whose time is over from up to so many users, for who does nothing: {users}.
create function public.expire_credits(p_limit integer default 100) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_users integer := 0;
begin
  for v_id in -- by user: two sweepers meet the profiles in one order
    select user_id from (
      select distinct user_id from public.credit_lots where remaining > 0 and expires_at <= now() limit greatest(0, least(p_limit, 1000))
    ) due order by user_id
  loop
    perform fishserve.lock_profile(v_id);
    v_users := v_users + 1;
  end loop;
  return jsonb_build_object('users', v_users);
end $$;

-- Whose balance is not the sum of the ledger or of the lots, which job's entries are not what it cost, and which lot or entry is not the sum of its
-- moves: always []. For a nightly look and the tests.
create or replace function public.audit_ledger() returns jsonb
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
    union all
    select jsonb_build_object('user_id', p.id, 'expected', p.balance, 'lots', coalesce(sum(l.remaining), 0))
    from public.profiles p left join public.credit_lots l on l.user_id = p.id
    group by p.id having p.balance <> coalesce(sum(l.remaining), 0)
    union all
    select jsonb_build_object('lot', l.id, 'expected', l.remaining, 'moves', l.opening + coalesce(sum(m.amount), 0))
    from public.credit_lots l left join public.lot_moves m on m.lot_id = l.id
    group by l.id having l.remaining <> l.opening + coalesce(sum(m.amount), 0)
    union all
    select jsonb_build_object('entry', t.id, 'expected', t.amount, 'moves', sum(m.amount))
    from public.transactions t join public.lot_moves m on m.entry_id = t.id
    group by t.id having t.amount <> sum(m.amount)
  )
  select coalesce(jsonb_agg(entry), '[]') from wrong
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.grant_credits, public.expire_credits from public, anon, authenticated;
grant execute on function public.grant_credits, public.expire_credits to service_role;

insert into fishserve.migrations (name) values ('20261127000200_lots');

-- 20261127000300_subscriptions.sql

-- Subscriptions and their invoices, as Stripe tells of them in any order and more than once. A subscription says which plan its user has; an invoice that
-- is paid brings the credits of its lines, once. What is kept of both is a state, so that the order of events cannot matter.

create table public.subscriptions (
  id text primary key, -- Stripe's: sub_...
  user_id uuid not null references public.profiles (id),
  plan text not null references public.plans (id),
  status text not null, -- Stripe's: active, trialing, past_due, incomplete, unpaid, paused, canceled, incomplete_expired
  period_end timestamptz, -- when it is renewed
  ends_at timestamptz, -- when it ends, as its user wishes; null: it goes on
  told_at timestamptz not null, -- when what is known of it was so; infinity: it is over
  created_at timestamptz not null default now()
);
create index subscriptions_of_user on public.subscriptions (user_id);
create index subscriptions_of_plan on public.subscriptions (plan);

create table public.invoices (
  id text primary key, -- Stripe's: in_...
  user_id uuid references public.profiles (id), -- null until it is told that it was paid
  subscription text,
  plan text references public.plans (id),
  credits bigint, -- that it brought; less than 0: that it took, since the plan was changed to a smaller one
  amount_cents bigint check (amount_cents >= 0), -- what was paid
  currency text check (currency ~ '^[a-z]{3}$'),
  payment text, -- Stripe's payment intent; null until it is told
  url text, -- where its user reads it
  created_at timestamptz not null default now(),
  check ((user_id is null) = (credits is null))
);
create index invoices_of_user on public.invoices (user_id);
create index invoices_of_plan on public.invoices (plan);
alter table public.payments add column invoice text references public.invoices (id); -- that it paid; its credits are that invoice's
create index payments_of_invoice on public.payments (invoice);

alter table public.subscriptions enable row level security;
alter table public.invoices enable row level security;
revoke all on public.subscriptions, public.invoices from anon, authenticated, service_role;
create policy "owners read" on public.subscriptions for select to authenticated using ((select auth.uid()) = user_id);
create policy "owners read" on public.invoices for select to authenticated using ((select auth.uid()) = user_id);
create policy "the service reads" on public.subscriptions for select to service_role using (true);
create policy "the service reads" on public.invoices for select to service_role using (true);
grant select on public.subscriptions, public.invoices to authenticated, service_role;

-- {plan, customer, subscriptions, expiring}: the plan with its limits, Stripe's customer, the subscriptions that are not over, the one in force first,
-- and the credits that end, the soonest first.
create function public.get_plan(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles;
begin
  select * into v_profile from public.profiles where id = p_user_id;
  if not found then v_profile := fishserve.lock_profile(p_user_id); end if;
  if v_profile.closed_at is not null then raise sqlstate 'PT403' using message = 'this account was closed'; end if;
  return jsonb_build_object('plan', to_jsonb(fishserve.plan_of(p_user_id)), 'customer', v_profile.stripe_customer,
    'subscriptions', (select coalesce(jsonb_agg(to_jsonb(s) - 'user_id' - 'told_at' order by s.plan <> v_profile.plan, s.created_at desc), '[]')
      from public.subscriptions s where s.user_id = p_user_id and s.told_at <> 'infinity' and s.status <> 'incomplete'),
    'expiring', (select coalesce(jsonb_agg(jsonb_build_object('credits', l.credits, 'expires_at', l.expires_at) order by l.expires_at), '[]') from (
      select expires_at, sum(remaining) as credits from public.credit_lots where user_id = p_user_id and remaining > 0 and expires_at > now() group by expires_at
    ) l));
end $$;

-- What is told of a subscription: {applied, closed}. `told_at` is Stripe's second; of events of one second, one that begins a subscription is the first,
-- and one that ends it the last, whenever it is told.
create function public.apply_subscription_event(
  p_event_id text, p_type text, p_subscription text, p_user_id uuid, p_price text, p_status text, p_told_at timestamptz,
  p_period_end timestamptz default null, p_ends_at timestamptz default null, p_customer text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles;
  v_plan text;
  v_told timestamptz := case when p_status in ('canceled', 'incomplete_expired') then 'infinity'
    when p_status = 'incomplete' or p_type = 'customer.subscription.created' then p_told_at else p_told_at + interval '1 millisecond' end;
begin
  if p_subscription is null or p_status is null or v_told is null then
    raise sqlstate 'PT422' using message = 'a subscription has an id, a status, and a moment at which it was so';
  end if;
  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found then return jsonb_build_object('applied', false, 'closed', false); end if;
  v_profile := fishserve.lock_profile(p_user_id);
  select id into v_plan from public.plans where stripe_price = p_price;
  if not found then raise sqlstate 'PT422' using message = format('no plan has the price %s', coalesce(p_price, 'null')); end if;
  insert into public.subscriptions as s (id, user_id, plan, status, period_end, ends_at, told_at)
    values (p_subscription, p_user_id, v_plan, p_status, p_period_end, p_ends_at, v_told)
    on conflict (id) do update set plan = excluded.plan, status = excluded.status, period_end = excluded.period_end, ends_at = excluded.ends_at,
      told_at = excluded.told_at where excluded.told_at >= s.told_at and s.user_id = excluded.user_id;
  update public.profiles set
    stripe_customer = case when closed_at is null then coalesce(p_customer, stripe_customer) end,
    plan = coalesce((select s.plan from public.subscriptions s join public.plans p on p.id = s.plan
      where s.user_id = p_user_id and s.status in ('active', 'trialing', 'past_due') order by p.amount_cents desc, s.id limit 1), 'free')
    where id = p_user_id;
  return jsonb_build_object('applied', true, 'closed', v_profile.closed_at is not null);
end $$;

-- Takes credits of a locked profile; what had been spent becomes debt.
create function fishserve.take(p_profile public.profiles, p_kind text, p_credits bigint, p_reference text, p_lot text default null) returns void
language plpgsql set search_path = '' as $$
begin
  update public.profiles set debt = debt + p_credits - least(p_credits, p_profile.balance) where id = p_profile.id;
  perform fishserve.post(p_profile.id, p_kind, -least(p_credits, p_profile.balance), null, p_reference, p_lot);
end $$;

-- After an event: brings the credits taken back of a locked payment to what its refunds and disputes say. {applied, balance, closed}.
create function fishserve.take_back(p_reference text, p_event_id text) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_payment public.payments;
  v_profile public.profiles;
  v_owed bigint;
  v_take bigint;
begin
  select * into v_payment from public.payments where reference = p_reference;
  if v_payment.user_id is null then return jsonb_build_object('applied', true, 'balance', null, 'closed', false); end if;
  v_profile := fishserve.lock_profile(v_payment.user_id);
  v_owed := fishserve.credits_owed(v_payment);
  v_take := v_owed - v_payment.taken;
  if v_take > 0 then
    perform fishserve.take(v_profile, 'chargeback', v_take, p_event_id, coalesce(v_payment.invoice, p_reference));
  elsif v_take < 0 then
    perform fishserve.post(v_profile.id, 'adjust', -v_take, null, p_event_id, coalesce(v_payment.invoice, p_reference));
  end if;
  update public.payments set taken = v_owed where reference = p_reference;
  return jsonb_build_object('applied', true, 'balance', fishserve.balance_of(v_profile.id), 'closed', v_profile.closed_at is not null);
end $$;

-- What is told of an invoice, {applied, balance, closed}: that it was paid (user_id, subscription, lines, cents, ...), or by which payment (payment), or both.
-- `lines`: {data: [{price, amount, ends_at}]}, as Stripe prorates them: a line brings the credits of its price's plan as far as it charges for that plan, and a line
-- that gives money back for a plan takes them. The credits end when the period does, after the days of grace of the plan.
create function public.apply_invoice_event(
  p_event_id text, p_type text, p_invoice text, p_payment text default null, p_user_id uuid default null, p_subscription text default null,
  p_lines jsonb default null, p_cents bigint default null, p_currency text default null, p_customer text default null, p_url text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_invoice public.invoices;
  v_profile public.profiles;
  v_plan public.plans;
  v_lines jsonb := case jsonb_typeof(p_lines) when 'string' then (p_lines #>> '{}')::jsonb else p_lines end -> 'data'; -- @supabase/lite sends its text
  v_credits bigint;
  v_ends_at timestamptz;
  v_first boolean; -- it is told for the first time that it was paid
  v_paid boolean; -- by a payment that is known
begin
  if p_invoice is null then raise sqlstate 'PT422' using message = 'an invoice has an id'; end if;
  if p_cents < 0 then raise sqlstate 'PT422' using message = format('%s cents are no amount of money', p_cents); end if;
  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found then
    select p.* into v_profile from public.profiles p where p.id = coalesce((select user_id from public.invoices where id = p_invoice), p_user_id);
    return jsonb_build_object('applied', false, 'balance', v_profile.balance, 'closed', v_profile.closed_at is not null);
  end if;

  -- Events of one invoice queue here; then come its payment and its user's profile, as always before credits move.
  insert into public.invoices (id) values (p_invoice) on conflict do nothing;
  select * into v_invoice from public.invoices where id = p_invoice for update;
  update public.invoices set payment = coalesce(payment, p_payment) where id = p_invoice returning * into v_invoice;
  v_first := p_user_id is not null and v_invoice.user_id is null;
  if v_first then
    select floor(sum(p.credits * l.amount / p.amount_cents)), max(l.ends_at) into v_credits, v_ends_at
      from jsonb_to_recordset(v_lines) as l (price text, amount numeric, ends_at timestamptz) join public.plans p on p.stripe_price = l.price;
    if v_credits is null then raise sqlstate 'PT422' using message = format('no plan has a price of the invoice %s', p_invoice); end if;
    select p.* into v_plan from jsonb_to_recordset(v_lines) as l (price text, amount numeric, ends_at timestamptz)
      join public.plans p on p.stripe_price = l.price order by l.ends_at desc nulls last, l.amount desc limit 1;
    update public.invoices set user_id = p_user_id, subscription = p_subscription, plan = v_plan.id, credits = v_credits,
      amount_cents = coalesce(p_cents, 0), currency = p_currency, url = p_url where id = p_invoice returning * into v_invoice;
  end if;
  if v_invoice.user_id is null then return jsonb_build_object('applied', true, 'balance', null, 'closed', false); end if;
  v_paid := v_invoice.payment is not null and v_invoice.credits > 0 and v_invoice.amount_cents > 0;
  if v_paid then
    insert into public.payments (reference) values (v_invoice.payment) on conflict do nothing;
    perform from public.payments where reference = v_invoice.payment for update;
  end if;
  v_profile := fishserve.lock_profile(v_invoice.user_id);
  if v_first then
    update public.profiles set stripe_customer = coalesce(p_customer, stripe_customer) where id = p_user_id and closed_at is null;
    if v_credits > 0 then
      perform fishserve.post(p_user_id, 'grant', v_credits, null, p_invoice, null, v_ends_at + make_interval(days => v_plan.grace_days));
    elsif v_credits < 0 then
      perform fishserve.take(v_profile, 'adjust', -v_credits, p_invoice);
    end if;
  end if;
  if v_paid then
    update public.payments set user_id = v_invoice.user_id, credits = v_invoice.credits, amount_cents = v_invoice.amount_cents,
      currency = v_invoice.currency, pack = v_invoice.plan, invoice = p_invoice where reference = v_invoice.payment and user_id is null;
    return fishserve.take_back(v_invoice.payment, p_event_id);
  end if;
  return jsonb_build_object('applied', true, 'balance', fishserve.balance_of(v_profile.id), 'closed', v_profile.closed_at is not null);
end $$;

-- As before; the credits of a payment of an invoice are that invoice's.
create or replace function public.apply_stripe_event(
  p_event_id text, p_type text, p_user_id uuid default null, p_credits bigint default null, p_reference text default null, p_kind text default null,
  p_receipt_url text default null, p_customer text default null, p_cents bigint default null, p_currency text default null, p_pack text default null,
  p_object text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_payment public.payments;
  v_cents bigint := coalesce(p_cents, 1000000000000);
  v_profile public.profiles;
begin
  if p_kind not in ('purchase', 'refund', 'refund_failed', 'dispute', 'reinstate') then
    raise sqlstate 'PT422' using message = format('an event is a purchase, refund, refund_failed, dispute or reinstate, not a %s', p_kind);
  end if;
  if p_kind is not null and p_reference is null then raise sqlstate 'PT422' using message = format('a %s needs the payment it is of', p_kind); end if;
  if p_kind = 'purchase' and (p_user_id is null or p_credits is null or p_credits <= 0) then
    raise sqlstate 'PT422' using message = format('a purchase needs a user and credits, not %s', coalesce(p_credits::text, 'none'));
  end if;
  if p_cents < 0 or p_kind = 'purchase' and p_cents = 0 then raise sqlstate 'PT422' using message = format('%s cents are no amount of money', p_cents); end if;
  if p_kind = 'refund_failed' and p_object is null then raise sqlstate 'PT422' using message = 'a refund that failed needs its id'; end if;

  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found or p_kind is null then
    select p.* into v_profile from public.profiles p
      where p.id = coalesce((select user_id from public.payments where reference = p_reference), p_user_id);
    return jsonb_build_object('applied', false, 'balance', v_profile.balance, 'closed', v_profile.closed_at is not null);
  end if;

  -- Events of one payment queue here; then the profile is locked, as always before credits move.
  insert into public.payments (reference) values (p_reference) on conflict do nothing;
  select * into v_payment from public.payments where reference = p_reference for update;
  if p_kind = 'purchase' and v_payment.user_id is null then
    perform fishserve.lock_profile(p_user_id);
    perform fishserve.post(p_user_id, 'purchase', p_credits, null, p_reference);
    update public.profiles set stripe_customer = coalesce(p_customer, stripe_customer) where id = p_user_id and closed_at is null;
    update public.payments set user_id = p_user_id, credits = p_credits, amount_cents = coalesce(p_cents, p_credits), currency = p_currency, pack = p_pack
      where reference = p_reference;
  elsif p_kind = 'refund' and p_object is null then
    update public.payments set stated_cents = greatest(stated_cents, v_cents) where reference = p_reference;
  elsif p_kind <> 'purchase' then
    if p_kind in ('dispute', 'reinstate') then -- the one that was known before disputes had ids
      update public.payment_returns set id = coalesce(p_object, 'dispute of ' || p_reference) where id = 'before ' || p_reference;
    end if;
    insert into public.payment_returns as r (id, reference, kind, cents, undone) values (
      coalesce(p_object, 'dispute of ' || p_reference), p_reference, case when p_kind in ('refund', 'refund_failed') then 'refund' else 'dispute' end,
      v_cents, p_kind in ('refund_failed', 'reinstate'))
      on conflict (id) do update set undone = r.undone or excluded.undone, cents = greatest(r.cents, excluded.cents);
  end if;
  update public.payments set receipt_url = coalesce(p_receipt_url, receipt_url) where reference = p_reference;
  return fishserve.take_back(p_reference, p_event_id);
end $$;

-- Entries of the ledger, newest first, a purchase with its receipt, the credits of an invoice with that.
create or replace function public.ledger(p_user_id uuid, p_before bigint default null, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('receipt_url', coalesce(p.receipt_url, i.url)) order by t.id desc), '[]') from (
    select * from public.transactions where user_id = p_user_id and (p_before is null or id < p_before)
    order by id desc limit greatest(0, least(coalesce(p_limit, 50), 200))
  ) t left join public.payments p on t.kind = 'purchase' and p.reference = t.reference
    left join public.invoices i on t.kind = 'grant' and i.user_id = t.user_id and i.id = t.reference
$$;

create or replace function public.close_account(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_keys jsonb;
begin
  perform from public.invoices where user_id = p_user_id order by id for update;
  perform from public.payments where user_id = p_user_id order by reference for update; -- before the profile, as Stripe's events do
  perform fishserve.lock_profile(p_user_id);
  for v_id in select id from public.jobs where user_id = p_user_id and status in ('queued', 'running') loop
    perform public.refund_job(v_id, 'cancelled', 'the account was closed');
  end loop;
  select coalesce(jsonb_agg(object_key), '[]') into v_keys from (
    select object_key from public.jobs where user_id = p_user_id and object_key is not null
    union all select object_key from public.cloned_voices where user_id = p_user_id
  ) o;
  perform fishserve.give_up_object(object_key) from public.jobs where user_id = p_user_id;
  perform fishserve.erase_voice(id) from public.cloned_voices where user_id = p_user_id and status <> 'deleted';
  update public.jobs set text = null, options = '{}', error = null, sha256 = null, object_key = null, api_key_id = null,
    idempotency_key = id::text, fingerprint = '', deleted_at = coalesce(deleted_at, now()) where user_id = p_user_id;
  delete from public.api_keys where user_id = p_user_id;
  delete from public.usage where user_id = p_user_id;
  update public.payments set receipt_url = null where user_id = p_user_id;
  update public.invoices set url = null where user_id = p_user_id;
  update public.profiles set email = null, display_name = null, stripe_customer = null, closed_at = coalesce(closed_at, now()) where id = p_user_id;
  delete from auth.users where id = p_user_id; -- the sign-in goes, too; the trigger below then closes what is closed already
  return jsonb_build_object('object_keys', v_keys);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.get_plan, public.apply_subscription_event, public.apply_invoice_event from public, anon, authenticated;
grant execute on function public.get_plan, public.apply_subscription_event, public.apply_invoice_event to service_role;

insert into fishserve.migrations (name) values ('20261127000300_subscriptions');

-- 20261127000400_keys.sql

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

-- 20261127000500_admin_actions.sql

-- What operators do at the desk: each act is one transaction, which also writes who did it and why. The rules are those of the functions that
-- everybody else uses; an act adds its row. `actor` is what the operator's command says: whoever holds the service's key can call all of this.

create table public.admin_actions (
  id bigint generated always as identity primary key,
  actor text not null check (char_length(actor) between 1 and 100),
  action text not null,
  target text not null, -- the id of a user, a job, a payment or a price
  user_id uuid references public.profiles (id), -- whose that is
  reason text not null check (char_length(reason) between 1 and 500),
  details jsonb not null default '{}',
  at timestamptz not null default now()
);
create index admin_actions_of_target on public.admin_actions (target, id);
create index admin_actions_of_user on public.admin_actions (user_id, id);
alter table public.admin_actions enable row level security;
revoke all on public.admin_actions from anon, authenticated, service_role;
create policy "the service reads" on public.admin_actions for select to service_role using (true);
grant select on public.admin_actions to service_role;

create function fishserve.keep_actions() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception 'what operators did is append-only';
end $$;
create trigger keep_actions before update or delete on public.admin_actions for each row execute function fishserve.keep_actions();
create trigger keep_all_actions before truncate on public.admin_actions for each statement execute function fishserve.keep_actions();

create function fishserve.record_action(
  p_actor text, p_action text, p_target text, p_user_id uuid, p_reason text, p_details jsonb default '{}'
) returns bigint
language plpgsql set search_path = '' as $$
declare
  v_id bigint;
begin
  if coalesce(char_length(btrim(p_actor)), 0) not between 1 and 100 then
    raise sqlstate 'PT422' using message = 'an act needs the name of its operator, of 1 to 100 characters';
  end if;
  if coalesce(char_length(btrim(p_reason)), 0) not between 1 and 500 then
    raise sqlstate 'PT422' using message = 'an act needs a reason of 1 to 500 characters';
  end if;
  insert into public.admin_actions (actor, action, target, user_id, reason, details)
    values (btrim(p_actor), p_action, p_target, p_user_id, btrim(p_reason), p_details) returning id into v_id;
  return v_id;
end $$;

-- The locked profile of an account that an operator may act on.
create function fishserve.account_at_desk(p_user_id uuid) returns public.profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.lock_profile(p_user_id);
begin
  if v_profile.closed_at is not null then
    raise sqlstate 'PT409' using message = format('the account %s was closed on %s', p_user_id, to_char(v_profile.closed_at at time zone 'utc', 'YYYY-MM-DD'));
  end if;
  return v_profile;
end $$;

-- {balance, applied, action}: a reference grants once, and only then is there an action.
create function public.admin_grant(p_actor text, p_reason text, p_user_id uuid, p_credits bigint, p_reference text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_done jsonb;
  v_action bigint;
begin
  perform fishserve.account_at_desk(p_user_id);
  v_done := public.grant_credits(p_user_id, p_credits, p_reference);
  if (v_done ->> 'applied')::boolean then
    v_action := fishserve.record_action(p_actor, 'grant', p_user_id::text, p_user_id, p_reason, jsonb_build_object('credits', p_credits, 'reference', p_reference));
  end if;
  return v_done || jsonb_build_object('action', v_action);
end $$;

-- As admin_grant, the other way: at most the balance.
create function public.admin_take(p_actor text, p_reason text, p_user_id uuid, p_credits bigint, p_reference text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_done jsonb;
  v_action bigint;
begin
  perform fishserve.lock_profile(p_user_id);
  if p_credits is null or p_credits <= 0 then
    raise sqlstate 'PT422' using message = format('%s credits cannot be taken', coalesce(p_credits::text, 'no'));
  end if;
  v_done := public.grant_credits(p_user_id, -p_credits, p_reference, 'adjust');
  if (v_done ->> 'applied')::boolean then
    v_action := fishserve.record_action(p_actor, 'take', p_user_id::text, p_user_id, p_reason, jsonb_build_object('credits', p_credits, 'reference', p_reference));
  end if;
  return v_done || jsonb_build_object('action', v_action);
end $$;

-- The account spends nothing until then; null: until it is lifted. Its jobs that nobody speaks yet end, and their credits come back.
create function public.admin_suspend(p_actor text, p_reason text, p_user_id uuid, p_until timestamptz default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_until timestamptz := coalesce(p_until, now() + interval '100 years'); -- Supabase cannot read 'infinity'
  v_job public.jobs;
  v_ended integer := 0;
begin
  perform fishserve.account_at_desk(p_user_id);
  if v_until <= now() then
    raise sqlstate 'PT422' using message = format('%s is over; an account is suspended until a later time', to_char(p_until at time zone 'utc', 'YYYY-MM-DD HH24:MI'));
  end if;
  update auth.users set banned_until = v_until where id = p_user_id;
  if not found then raise sqlstate 'PT404' using message = format('no user has the id %s', p_user_id); end if;
  for v_job in
    select * from public.jobs where user_id = p_user_id and status = 'queued' and (lease_until is null or lease_until < now()) for no key update
  loop
    perform fishserve.end_job(v_job, 'cancelled', 'the account was suspended', v_job.heard_seconds);
    v_ended := v_ended + 1;
  end loop;
  return jsonb_build_object('user_id', p_user_id, 'suspended_until', v_until, 'ended_jobs', v_ended,
    'action', fishserve.record_action(p_actor, 'suspend', p_user_id::text, p_user_id, p_reason, jsonb_build_object('until', v_until, 'ended_jobs', v_ended)));
end $$;

create function public.admin_unsuspend(p_actor text, p_reason text, p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform fishserve.account_at_desk(p_user_id);
  update auth.users set banned_until = null where id = p_user_id and banned_until > now();
  if not found then raise sqlstate 'PT409' using message = format('the account %s is not suspended', p_user_id); end if;
  return jsonb_build_object('user_id', p_user_id, 'action', fishserve.record_action(p_actor, 'unsuspend', p_user_id::text, p_user_id, p_reason));
end $$;

-- One key of a user, or all.
create function public.admin_revoke_keys(p_actor text, p_reason text, p_user_id uuid, p_key_id uuid default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_prefixes jsonb;
begin
  perform fishserve.account_at_desk(p_user_id);
  with revoked as (
    update public.api_keys set revoked_at = now() where user_id = p_user_id and revoked_at is null and (p_key_id is null or id = p_key_id) returning prefix
  )
  select jsonb_agg(prefix order by prefix) into v_prefixes from revoked;
  if v_prefixes is null then
    raise sqlstate 'PT404' using message = format('the account %s has no key %sthat is good', p_user_id, coalesce(p_key_id || ' ', ''));
  end if;
  return jsonb_build_object('revoked', v_prefixes,
    'action', fishserve.record_action(p_actor, 'revoke keys', p_user_id::text, p_user_id, p_reason, jsonb_build_object('prefixes', v_prefixes)));
end $$;

-- Ends a job at no cost but that of what its client has heard: {job, balance, action}.
create function public.admin_cancel_job(p_actor text, p_reason text, p_job_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_done jsonb := public.refund_job(p_job_id, 'cancelled', 'cancelled by an operator');
begin
  if not (v_done ->> 'changed')::boolean then
    raise sqlstate 'PT409' using message = format('the job %s is over: %s', p_job_id, v_done -> 'job' ->> 'status');
  end if;
  return jsonb_build_object('job', (v_done -> 'job') - 'text', 'balance', v_done -> 'balance', 'action', fishserve.record_action(
    p_actor, 'cancel job', p_job_id::text, (v_done -> 'job' ->> 'user_id')::uuid, p_reason, jsonb_build_object('charged', v_done -> 'job' -> 'charged')));
end $$;

-- Speaks the text of a job that ended without its result once more, as a new job of its user at today's price: {job, balance, action}.
-- The arguments are those of process_audio_request; a retry that is under way, or succeeded, is not made twice.
create function public.admin_retry_job(
  p_actor text, p_reason text, p_job_id uuid, p_token_hash text, p_letters numeric default null, p_silence numeric default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
  v_done jsonb;
begin
  select * into v_job from public.jobs where id = p_job_id;
  if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
  if v_job.status not in ('failed', 'cancelled', 'expired') then
    raise sqlstate 'PT409' using message = format('the job %s is %s; only one that failed, was cancelled or expired is retried', p_job_id, v_job.status);
  end if;
  if v_job.text is null then raise sqlstate 'PT410' using message = format('the text of the job %s was deleted', p_job_id); end if;
  v_done := public.process_audio_request(p_user_id => v_job.user_id, p_idempotency_key => 'retry ' || p_job_id, p_fingerprint => v_job.fingerprint,
    p_text => v_job.text, p_token_hash => p_token_hash, p_voice_id => v_job.voice_id, p_options => v_job.options, p_letters => p_letters,
    p_silence => p_silence);
  if (v_done ->> 'replayed')::boolean then
    raise sqlstate 'PT409' using message = format('the job %s was retried: it is the job %s', p_job_id, v_done -> 'job' ->> 'id');
  end if;
  return jsonb_build_object('job', (v_done -> 'job') - 'text', 'balance', v_done -> 'balance', 'action', fishserve.record_action(
    p_actor, 'retry job', p_job_id::text, v_job.user_id, p_reason, jsonb_build_object('job', v_done -> 'job' -> 'id', 'reserved', v_done -> 'job' -> 'reserved')));
end $$;

create function public.admin_set_price(
  p_actor text, p_reason text, p_credits_per_second numeric, p_minimum bigint default null, p_characters_per_second numeric default null,
  p_name text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_price jsonb := public.set_price(p_credits_per_second, p_minimum, p_characters_per_second, p_name);
begin
  return jsonb_build_object('price', v_price, 'action', fishserve.record_action(p_actor, 'set price', v_price ->> 'id', null, p_reason, v_price));
end $$;

-- Refunds: Stripe is asked between two transactions. The first writes what is to be done, the last what came of it; a process that dies between
-- them leaves a refund without an outcome, which the next call for that payment takes up.

-- How much of a payment's money went back, as far as is known.
create function fishserve.cents_returned(p_payment public.payments) returns bigint
language sql stable set search_path = '' as $$
  select least(p_payment.amount_cents,
    greatest(coalesce(sum(cents) filter (where kind = 'refund' and not undone), 0),
      p_payment.stated_cents - coalesce(sum(cents) filter (where kind = 'refund' and undone), 0))
    + coalesce(sum(cents) filter (where kind = 'dispute' and not undone), 0))::bigint
  from public.payment_returns where reference = p_payment.reference
$$;

create function fishserve.has_outcome(p_action public.admin_actions) returns boolean
language sql stable set search_path = '' as $$
  select exists (select from public.admin_actions a where a.target = p_action.target and a.action in ('refund booked', 'refund refused')
    and a.details -> 'of' = to_jsonb(p_action.id))
$$;

-- {action, reference, cents, currency, resumed}: what to ask Stripe for. cents null: all that is left. `resumed`: an earlier call wrote it.
create function public.admin_begin_refund(p_actor text, p_reason text, p_reference text, p_cents bigint default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_payment public.payments;
  v_open public.admin_actions;
  v_left bigint;
  v_cents bigint;
  v_action bigint;
begin
  select * into v_payment from public.payments where reference = p_reference and user_id is not null for update;
  if not found then raise sqlstate 'PT404' using message = format('there is no payment %s', p_reference); end if;
  select * into v_open from public.admin_actions a where a.target = p_reference and a.action = 'refund' and not fishserve.has_outcome(a) order by id limit 1;
  if found then
    if p_cents <> (v_open.details ->> 'cents')::bigint then
      raise sqlstate 'PT409' using message = format('a refund of %s was begun and its outcome is not known: ask for that amount first', v_open.details ->> 'cents');
    end if;
    return jsonb_build_object('action', v_open.id, 'reference', p_reference, 'cents', v_open.details -> 'cents', 'currency', v_payment.currency, 'resumed', true);
  end if;
  v_left := v_payment.amount_cents - fishserve.cents_returned(v_payment);
  v_cents := coalesce(p_cents, v_left);
  if v_left = 0 then raise sqlstate 'PT409' using message = format('all of the payment %s went back before', p_reference); end if;
  if v_cents not between 1 and v_left then
    raise sqlstate 'PT422' using message = format('%s cannot be refunded: %s of the payment are left, in the smallest unit of its currency', v_cents, v_left);
  end if;
  v_action := fishserve.record_action(p_actor, 'refund', p_reference, v_payment.user_id, p_reason, jsonb_build_object('cents', v_cents, 'currency', v_payment.currency));
  return jsonb_build_object('action', v_action, 'reference', p_reference, 'cents', v_cents, 'currency', v_payment.currency, 'resumed', false);
end $$;

-- Stripe made the refund: books it, which takes the credits, once, whether this call or a webhook comes first. {credits, balance, debt}:
-- how many credits the payment has lost in all, and what its user has.
create function public.admin_end_refund(p_actor text, p_action bigint, p_refund text, p_cents bigint) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_action public.admin_actions;
  v_payment public.payments;
  v_profile public.profiles;
begin
  select * into v_action from public.admin_actions where id = p_action and action = 'refund';
  if not found then raise sqlstate 'PT404' using message = format('there is no refund %s', p_action); end if;
  perform from public.payments where reference = v_action.target for update;
  perform public.apply_stripe_event('desk ' || p_refund, 'refund.created', p_reference => v_action.target, p_kind => 'refund', p_cents => p_cents,
    p_object => p_refund);
  if not fishserve.has_outcome(v_action) then
    perform fishserve.record_action(p_actor, 'refund booked', v_action.target, v_action.user_id, v_action.reason,
      jsonb_build_object('of', p_action, 'refund', p_refund, 'cents', p_cents));
  end if;
  select * into v_payment from public.payments where reference = v_action.target;
  select * into v_profile from public.profiles where id = v_payment.user_id;
  return jsonb_build_object('credits', v_payment.taken, 'balance', v_profile.balance, 'debt', v_profile.debt);
end $$;

-- Stripe refused: nothing was refunded.
create function public.admin_fail_refund(p_actor text, p_action bigint, p_error text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_action public.admin_actions;
begin
  select * into v_action from public.admin_actions where id = p_action and action = 'refund';
  if not found then raise sqlstate 'PT404' using message = format('there is no refund %s', p_action); end if;
  perform from public.payments where reference = v_action.target for update;
  if not fishserve.has_outcome(v_action) then
    perform fishserve.record_action(p_actor, 'refund refused', v_action.target, v_action.user_id, v_action.reason,
      jsonb_build_object('of', p_action, 'error', left(p_error, 500)));
  end if;
  return jsonb_build_object('reference', v_action.target);
end $$;

-- The text of a job, for retrying it: {user_id, text}.
create function public.job_text(p_job_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  select * into v_job from public.jobs where id = p_job_id;
  if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
  return jsonb_build_object('user_id', v_job.user_id, 'text', v_job.text);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.admin_grant, public.admin_take, public.admin_suspend, public.admin_unsuspend, public.admin_revoke_keys,
  public.admin_cancel_job, public.admin_retry_job, public.admin_set_price, public.admin_begin_refund, public.admin_end_refund, public.admin_fail_refund,
  public.job_text from public, anon, authenticated;
grant execute on function public.admin_grant, public.admin_take, public.admin_suspend, public.admin_unsuspend, public.admin_revoke_keys,
  public.admin_cancel_job, public.admin_retry_job, public.admin_set_price, public.admin_begin_refund, public.admin_end_refund, public.admin_fail_refund,
  public.job_text to service_role;

insert into fishserve.migrations (name) values ('20261127000500_admin_actions');

-- 20261127000600_desk.sql

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

-- 20261127000700_books.sql

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

-- 20261127000900_operating_figures.sql

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

-- 20261127001000_retention.sql

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

-- 20261128000100_desk_plans.sql

-- Plans at the desk: an operator gives a user one, and sees all there are.

-- The user's plan, until a subscription begins, changes or ends: {plan, before, action}.
create function public.admin_set_plan(p_actor text, p_reason text, p_user_id uuid, p_plan text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_before text := (fishserve.account_at_desk(p_user_id)).plan;
begin
  if v_before = p_plan then raise sqlstate 'PT409' using message = format('the account %s has the plan %s', p_user_id, p_plan); end if;
  perform public.set_plan(p_user_id, p_plan);
  return jsonb_build_object('plan', p_plan, 'before', v_before, 'action',
    fishserve.record_action(p_actor, 'set plan', p_user_id::text, p_user_id, p_reason, jsonb_build_object('plan', p_plan, 'before', v_before)));
end $$;

-- {prices, packs, plans}: every price that ever was, the newest first, and all packs and plans.
create or replace function public.admin_prices() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('prices', (select coalesce(jsonb_agg(to_jsonb(p) order by p.id desc), '[]') from public.prices p),
    'packs', (select coalesce(jsonb_agg(to_jsonb(k) order by k.active desc, k.amount_cents), '[]') from public.packs k),
    'plans', (select coalesce(jsonb_agg(to_jsonb(n) order by n.amount_cents nulls first, n.id), '[]') from public.plans n))
$$;

revoke execute on function public.admin_set_plan from public, anon, authenticated;
grant execute on function public.admin_set_plan to service_role;

insert into fishserve.migrations (name) values ('20261128000100_desk_plans');

-- 20261128000300_webhooks.sql

-- Customers' webhooks: where each user wants to be told of what happened, and what is still to be delivered there. A delivery is written in the
-- transaction of what it tells of, by triggers, so that neither is there without the other. It holds no text of a user's, only ids and numbers.

alter table public.settings add column low_credits bigint default 200 check (low_credits > 0); -- users with fewer are told so; null: nobody is
alter table public.profiles add column low_since timestamptz; -- when the user was told that the credits are low

create table public.webhook_endpoints (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.profiles (id),
  url text not null check (char_length(url) between 1 and 2000),
  events text[] not null check (cardinality(events) > 0 and events <@ array['job.succeeded', 'job.failed', 'credits.low', 'voice.ready']),
  delivered_at timestamptz, -- when a delivery arrived last
  disabled_at timestamptz, -- deliveries failed for days, or it said that it is gone
  created_at timestamptz not null default now()
);
create index webhook_endpoints_of_user on public.webhook_endpoints (user_id);

-- What deliveries are signed with. For a day after a rotation the secret before it signs, too.
create table fishserve.webhook_secrets (
  endpoint_id uuid primary key references public.webhook_endpoints (id) on delete cascade,
  secret text not null,
  previous text,
  previous_until timestamptz
);

create table public.webhook_deliveries (
  id uuid primary key default gen_random_uuid(),
  endpoint_id uuid not null references public.webhook_endpoints (id) on delete cascade,
  user_id uuid not null references public.profiles (id),
  event text not null,
  payload jsonb not null,
  attempts integer not null default 0,
  next_at timestamptz not null default now(), -- of the next attempt; while one is under way, when it counts as lost
  under_way boolean not null default false,
  status integer, -- HTTP's, of the last attempt; null where there was no answer
  error text, -- why the last attempt failed
  milliseconds integer, -- that it took
  outcome text check (outcome in ('delivered', 'failed')), -- null: there is another attempt
  finished_at timestamptz,
  created_at timestamptz not null default now(),
  check ((outcome is null) = (finished_at is null))
);
create index webhook_deliveries_due on public.webhook_deliveries (endpoint_id, next_at) where outcome is null;
create index webhook_deliveries_under_way on public.webhook_deliveries (user_id) where under_way;
create index webhook_deliveries_of_endpoint on public.webhook_deliveries (endpoint_id, created_at);
create index webhook_deliveries_of_user on public.webhook_deliveries (user_id);
create index webhook_deliveries_by_age on public.webhook_deliveries (created_at);

alter table public.webhook_endpoints enable row level security;
alter table fishserve.webhook_secrets enable row level security;
alter table public.webhook_deliveries enable row level security;
revoke all on public.webhook_endpoints, public.webhook_deliveries, fishserve.webhook_secrets from public, anon, authenticated, service_role;
create policy "the service reads" on public.webhook_endpoints for select to service_role using (true);
create policy "the service reads" on public.webhook_deliveries for select to service_role using (true);
create policy "the owner alone" on fishserve.webhook_secrets for select using (false);
grant select on public.webhook_endpoints, public.webhook_deliveries to service_role;

create function fishserve.payload(p_event text, p_data jsonb) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('type', p_event, 'timestamp', to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'data', p_data)
$$;

-- Writes a delivery for each endpoint of the user that wants the event.
create function fishserve.tell(p_user_id uuid, p_event text, p_data jsonb) returns void
language sql set search_path = '' as $$
  insert into public.webhook_deliveries (endpoint_id, user_id, event, payload)
    select id, user_id, p_event, fishserve.payload(p_event, p_data) from public.webhook_endpoints
    where user_id = p_user_id and disabled_at is null and p_event = any (events)
$$;

create function fishserve.tell_of_job() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform fishserve.tell(new.user_id, case new.status when 'succeeded' then 'job.succeeded' else 'job.failed' end, jsonb_build_object('id', new.id,
    'status', new.status, 'seconds', new.seconds, 'credits', new.charged, 'partial', new.partial, 'created_at', new.created_at, 'finished_at', new.finished_at));
  return null;
end $$;
create trigger tell_of_job after update of status on public.jobs for each row
  when (old.status in ('queued', 'running') and new.status in ('succeeded', 'failed', 'expired')) execute function fishserve.tell_of_job();

create function fishserve.tell_of_voice() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform fishserve.tell(new.user_id, 'voice.ready', jsonb_build_object('id', new.id, 'seconds', new.seconds));
  return null;
end $$;
create trigger tell_of_voice after update of status on public.cloned_voices for each row
  when (old.status = 'pending' and new.status = 'ready') execute function fishserve.tell_of_voice();

create function fishserve.tell_of_low_credits(p_user_id uuid, p_credits bigint) returns void
language sql set search_path = '' as $$
  select fishserve.tell(p_user_id, 'credits.low', jsonb_build_object('credits', p_credits))
$$;

-- A user whose credits fall below the mark is told once, and again after they were above it. What is reserved still counts: most of it may come back.
create function fishserve.notice_low_credits() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_low bigint := (select low_credits from public.settings);
  v_since timestamptz := (select low_since from public.profiles where id = new.user_id);
begin
  if v_since is not null and new.balance_after >= coalesce(v_low, 0) then
    update public.profiles set low_since = null where id = new.user_id;
  elsif v_since is null and new.balance_after < v_low and new.kind in ('settle', 'chargeback', 'expire', 'adjust') and new.balance_after
    + coalesce((select sum(reserved) from public.jobs where user_id = new.user_id and (status = 'queued' or status = 'running')), 0) < v_low then
    update public.profiles set low_since = now() where id = new.user_id;
    perform fishserve.tell_of_low_credits(new.user_id, new.balance_after);
  end if;
  return null;
end $$;
create trigger notice_low_credits after insert on public.transactions for each row
  when (new.kind <> 'reserve') execute function fishserve.notice_low_credits();

-- A closed account is told nothing more.
create function fishserve.forget_webhooks() returns trigger
language plpgsql set search_path = '' as $$
begin
  delete from public.webhook_endpoints where user_id = new.id;
  return null;
end $$;
create trigger forget_webhooks after update of closed_at on public.profiles for each row
  when (new.closed_at is not null) execute function fishserve.forget_webhooks();

create function fishserve.endpoint_json(p_endpoint public.webhook_endpoints) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_endpoint) || jsonb_build_object('waiting',
    (select count(*) from public.webhook_deliveries where endpoint_id = p_endpoint.id and outcome is null))
$$;

create function fishserve.endpoint_of(p_user_id uuid, p_endpoint_id uuid) returns public.webhook_endpoints
language plpgsql set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints;
begin
  select * into v_endpoint from public.webhook_endpoints where id = p_endpoint_id and user_id = p_user_id for no key update;
  if not found then raise sqlstate 'PT404' using message = format('you have no webhook %s', p_endpoint_id); end if;
  return v_endpoint;
end $$;

create function public.create_webhook(p_user_id uuid, p_url text, p_events text[], p_secret text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints;
begin
  perform fishserve.open_profile(p_user_id);
  if coalesce(char_length(p_url), 0) not between 1 and 2000 then raise sqlstate 'PT422' using message = 'a webhook needs an address of 1 to 2000 characters'; end if;
  if coalesce(cardinality(p_events), 0) = 0 or not p_events <@ array['job.succeeded', 'job.failed', 'credits.low', 'voice.ready'] then
    raise sqlstate 'PT422' using message = 'a webhook needs events out of job.succeeded, job.failed, credits.low and voice.ready';
  end if;
  if p_secret is null then raise sqlstate 'PT422' using message = 'a webhook needs a secret'; end if;
  if (select count(*) from public.webhook_endpoints where user_id = p_user_id) >= 5 then
    raise sqlstate 'PT409' using message = 'you have 5 webhooks, the most an account may have; delete one first';
  end if;
  insert into public.webhook_endpoints (user_id, url, events) values (p_user_id, p_url, p_events) returning * into v_endpoint;
  insert into fishserve.webhook_secrets (endpoint_id, secret) values (v_endpoint.id, p_secret);
  return jsonb_build_object('endpoint', fishserve.endpoint_json(v_endpoint));
end $$;

create function public.list_webhooks(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.endpoint_json(e) order by e.created_at), '[]') from public.webhook_endpoints e where e.user_id = p_user_id
$$;

create function public.delete_webhook(p_user_id uuid, p_endpoint_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform fishserve.endpoint_of(p_user_id, p_endpoint_id);
  delete from public.webhook_endpoints where id = p_endpoint_id;
  return jsonb_build_object('id', p_endpoint_id);
end $$;

-- {endpoint}: from now on the new secret signs, and for a day the one before it, too.
create function public.rotate_webhook_secret(p_user_id uuid, p_endpoint_id uuid, p_secret text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints := fishserve.endpoint_of(p_user_id, p_endpoint_id);
begin
  if p_secret is null then raise sqlstate 'PT422' using message = 'a webhook needs a secret'; end if;
  update fishserve.webhook_secrets set previous = secret, previous_until = now() + interval '1 day', secret = p_secret where endpoint_id = p_endpoint_id;
  return jsonb_build_object('endpoint', fishserve.endpoint_json(v_endpoint));
end $$;

-- The log of an endpoint, newest first: [delivery].
create function public.list_deliveries(p_user_id uuid, p_endpoint_id uuid, p_before timestamptz default null, p_limit integer default 50) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  if not exists (select from public.webhook_endpoints where id = p_endpoint_id and user_id = p_user_id) then
    raise sqlstate 'PT404' using message = format('you have no webhook %s', p_endpoint_id);
  end if;
  return (select coalesce(jsonb_agg(to_jsonb(d) order by d.created_at desc, d.id), '[]') from (
    select * from public.webhook_deliveries where endpoint_id = p_endpoint_id and (p_before is null or created_at < p_before)
    order by created_at desc, id limit greatest(0, least(p_limit, 200))
  ) d);
end $$;

-- A delivery with what an attempt needs: its endpoint's address, and the secrets that sign, the newest first.
create function fishserve.order_json(p_delivery public.webhook_deliveries) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_delivery) || jsonb_build_object('url', e.url, 'secrets',
    jsonb_build_array(s.secret) || case when s.previous_until > now() then jsonb_build_array(s.previous) else '[]' end)
  from public.webhook_endpoints e join fishserve.webhook_secrets s on s.endpoint_id = e.id where e.id = p_delivery.endpoint_id
$$;

-- A delivery to try an endpoint with, claimed by the caller: it is tried once, and enables an endpoint that was disabled.
create function public.create_test_delivery(p_user_id uuid, p_endpoint_id uuid, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_delivery public.webhook_deliveries;
begin
  perform fishserve.open_profile(p_user_id);
  perform fishserve.endpoint_of(p_user_id, p_endpoint_id);
  insert into public.webhook_deliveries (endpoint_id, user_id, event, payload, attempts, under_way, next_at)
    values (p_endpoint_id, p_user_id, 'webhook.test', fishserve.payload('webhook.test', '{}'), 1, true, now() + make_interval(secs => p_lease_seconds))
    returning * into v_delivery;
  return fishserve.order_json(v_delivery);
end $$;

create function fishserve.under_way(p_user_id uuid) returns integer
language sql stable set search_path = '' as $$
  select count(*)::integer from public.webhook_deliveries where user_id = p_user_id and under_way and next_at > now()
$$;

-- Deliveries that are due, each with its address and secrets, for the caller to try while its lease lasts: the endpoint that has waited longest first,
-- and at most four of a user's at once, so that endpoints that do not answer hold up nobody else. A process that dies loses its lease, and another one
-- delivers again.
create function public.claim_deliveries(p_limit integer, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_limit integer := greatest(0, least(p_limit, 1000));
  v_endpoint record;
  v_free integer;
  v_part jsonb;
  v_all jsonb := '[]'::jsonb;
begin
  for v_endpoint in
    select e.id, e.user_id from public.webhook_endpoints e where e.disabled_at is null
      and exists (select from public.webhook_deliveries d where d.endpoint_id = e.id and d.outcome is null and d.next_at <= now())
      and fishserve.under_way(e.user_id) < 4 -- others than these have their turn
    order by (select min(d.next_at) from public.webhook_deliveries d where d.endpoint_id = e.id and d.outcome is null)
    limit v_limit for no key update of e skip locked
  loop
    exit when jsonb_array_length(v_all) >= v_limit;
    v_free := least(v_limit - jsonb_array_length(v_all), 4 - fishserve.under_way(v_endpoint.user_id));
    with due as (
      select id from public.webhook_deliveries where endpoint_id = v_endpoint.id and outcome is null and next_at <= now()
      order by next_at, created_at limit greatest(0, v_free) for no key update skip locked
    ), claimed as (
      update public.webhook_deliveries d set under_way = true, attempts = attempts + 1, next_at = now() + make_interval(secs => p_lease_seconds)
      from due where d.id = due.id returning fishserve.order_json(d) as delivery
    )
    select coalesce(jsonb_agg(delivery), '[]') into v_part from claimed;
    v_all := v_all || v_part;
  end loop;
  return v_all;
end $$;

-- How long to wait after so many attempts; null: no more, after about three days.
create function fishserve.retry_pause(p_attempts integer) returns interval
language sql immutable set search_path = '' as $$
  select (array['5 seconds', '30 seconds', '2 minutes', '15 minutes', '1 hour', '3 hours', '8 hours', '16 hours', '24 hours', '24 hours']::interval[])[p_attempts]
$$;

create function fishserve.disable_endpoint(p_endpoint_id uuid) returns void
language sql set search_path = '' as $$
  update public.webhook_endpoints set disabled_at = now() where id = p_endpoint_id and disabled_at is null;
  update public.webhook_deliveries set outcome = 'failed', finished_at = now(), under_way = false, error = 'the webhook was disabled'
    where endpoint_id = p_endpoint_id and outcome is null and event <> 'webhook.test';
$$;

-- What came of an attempt: {delivery, disabled}; delivery is null where the endpoint was deleted meanwhile. Only a status of 200 to 299 is a delivery. The failure of an attempt that lost its lease is passed over:
-- a later one is under way. Where the last attempt failed, and nothing has arrived since the event, the endpoint is disabled; so is one that answers 410.
create function public.end_delivery(
  p_delivery_id uuid, p_attempt integer, p_status integer default null, p_error text default null, p_milliseconds integer default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints;
  v_delivery public.webhook_deliveries;
  v_good boolean := coalesce(p_status between 200 and 299, false);
  v_last boolean;
begin
  select e.* into v_endpoint from public.webhook_endpoints e join public.webhook_deliveries d on d.endpoint_id = e.id where d.id = p_delivery_id
    for no key update of e; -- before its deliveries, as all that locks both
  if not found then return jsonb_build_object('delivery', null, 'disabled', false); end if;
  select * into v_delivery from public.webhook_deliveries where id = p_delivery_id for no key update;
  if v_delivery.outcome is not null or not v_good and v_delivery.attempts <> p_attempt then
    return jsonb_build_object('delivery', to_jsonb(v_delivery), 'disabled', false);
  end if;
  v_last := not v_good and (v_delivery.event = 'webhook.test' or p_status = 410 or fishserve.retry_pause(v_delivery.attempts) is null);
  update public.webhook_deliveries set status = p_status, error = case when not v_good then left(p_error, 200) end, milliseconds = p_milliseconds,
    under_way = false, outcome = case when v_good then 'delivered' when v_last then 'failed' end, finished_at = case when v_good or v_last then now() end,
    next_at = case when v_good or v_last then next_at else now() + fishserve.retry_pause(attempts) * (1 + random() / 10) end
    where id = p_delivery_id returning * into v_delivery;
  if v_good then
    update public.webhook_endpoints set delivered_at = now(), disabled_at = null where id = v_endpoint.id;
  elsif v_last and v_delivery.event <> 'webhook.test' and v_endpoint.disabled_at is null
    and (p_status = 410 or coalesce(v_endpoint.delivered_at, '-infinity') < v_delivery.created_at) then
    perform fishserve.disable_endpoint(v_endpoint.id);
    return jsonb_build_object('delivery', to_jsonb(v_delivery), 'disabled', true);
  end if;
  return jsonb_build_object('delivery', to_jsonb(v_delivery), 'disabled', false);
end $$;

-- The log is kept for 30 days: {expired}, at most 1000.
create function public.expire_deliveries() returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.webhook_deliveries where created_at < now() - interval '30 days' order by created_at limit 1000 for update skip locked
  ), gone as (
    delete from public.webhook_deliveries d using due where d.id = due.id returning 1
  )
  select jsonb_build_object('expired', count(*)) from gone
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.create_webhook, public.list_webhooks, public.delete_webhook, public.rotate_webhook_secret, public.list_deliveries,
  public.create_test_delivery, public.claim_deliveries, public.end_delivery, public.expire_deliveries from public, anon, authenticated;
grant execute on function public.create_webhook, public.list_webhooks, public.delete_webhook, public.rotate_webhook_secret, public.list_deliveries,
  public.create_test_delivery, public.claim_deliveries, public.end_delivery, public.expire_deliveries to service_role;

insert into fishserve.migrations (name) values ('20261128000300_webhooks');

-- 20261128000400_mail.sql

-- Mail to users and to the operator: what is to be sent is written here in the transaction of what it tells of, and a row goes when its message was sent
-- or given up. A mail server that does not answer loses and blocks nothing.

create table public.mails (
  id bigint generated always as identity primary key,
  user_id uuid references public.profiles (id),
  address text, -- null: the operator's, which the API knows
  kind text not null check (kind in ('credits_low', 'receipt', 'key_created', 'webhook_disabled', 'account_closed', 'dispute')),
  data jsonb not null default '{}',
  attempts integer not null default 0,
  next_at timestamptz not null default now(), -- of the next attempt; while one is under way, when it counts as lost
  created_at timestamptz not null default now()
);
create index mails_due on public.mails (next_at);
create index mails_of_user on public.mails (user_id);
create index mails_by_age on public.mails (created_at);
alter table public.mails enable row level security;
revoke all on public.mails from anon, authenticated, service_role;
create policy "the service reads" on public.mails for select to service_role using (true);
grant select on public.mails to service_role;

create function fishserve.mail(p_user_id uuid, p_kind text, p_data jsonb default '{}') returns void
language sql set search_path = '' as $$
  insert into public.mails (user_id, address, kind, data)
    select id, email, p_kind, p_data from public.profiles where id = p_user_id and closed_at is null and email is not null
$$;

create or replace function fishserve.tell_of_low_credits(p_user_id uuid, p_credits bigint) returns void
language sql set search_path = '' as $$
  select fishserve.tell(p_user_id, 'credits.low', jsonb_build_object('credits', p_credits));
  select fishserve.mail(p_user_id, 'credits_low', jsonb_build_object('credits', p_credits));
$$;

create function fishserve.mail_receipt() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform fishserve.mail(new.user_id, 'receipt', jsonb_build_object('reference', new.reference)); -- what else it says may be told a little later
  return null;
end $$;
create trigger mail_receipt after update of user_id on public.payments for each row
  when (old.user_id is null and new.user_id is not null) execute function fishserve.mail_receipt();

create function fishserve.mail_new_key() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform fishserve.mail(new.user_id, 'key_created', jsonb_build_object('name', new.name, 'prefix', new.prefix));
  return null;
end $$;
create trigger mail_new_key after insert on public.api_keys for each row execute function fishserve.mail_new_key();

create function fishserve.mail_dispute() returns trigger
language plpgsql set search_path = '' as $$
begin
  insert into public.mails (kind, data) values ('dispute', jsonb_build_object('reference', new.reference, 'dispute', new.id, 'cents', new.cents));
  return null;
end $$;
create trigger mail_dispute after insert on public.payment_returns for each row
  when (new.kind = 'dispute' and not new.undone) execute function fishserve.mail_dispute();

-- A closed account gets this one message, and nothing that still waits.
create function fishserve.mail_closing() returns trigger
language plpgsql set search_path = '' as $$
begin
  delete from public.mails where user_id = new.id;
  if old.email is not null then insert into public.mails (user_id, address, kind) values (new.id, old.email, 'account_closed'); end if;
  return null;
end $$;
create trigger mail_closing after update of closed_at on public.profiles for each row
  when (old.closed_at is null and new.closed_at is not null) execute function fishserve.mail_closing();

create or replace function fishserve.disable_endpoint(p_endpoint_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints;
begin
  update public.webhook_endpoints set disabled_at = now() where id = p_endpoint_id and disabled_at is null returning * into v_endpoint;
  if found then perform fishserve.mail(v_endpoint.user_id, 'webhook_disabled', jsonb_build_object('url', v_endpoint.url)); end if;
  update public.webhook_deliveries set outcome = 'failed', finished_at = now(), under_way = false, error = 'the webhook was disabled'
    where endpoint_id = p_endpoint_id and outcome is null and event <> 'webhook.test';
end $$;

-- What a message says, as it is known now: of a payment, what was bought and for how much.
create function fishserve.mail_json(p_mail public.mails) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('id', p_mail.id, 'address', p_mail.address, 'kind', p_mail.kind, 'attempts', p_mail.attempts, 'created_at', p_mail.created_at,
    'data', p_mail.data || coalesce((
      select jsonb_build_object('user_id', p.user_id, 'credits', p.credits, 'currency', p.currency, 'url', coalesce(i.url, p.receipt_url))
        || case p_mail.kind when 'receipt' then jsonb_build_object('cents', p.amount_cents) else jsonb_build_object('cents',
          least((p_mail.data ->> 'cents')::bigint, coalesce(p.amount_cents, (p_mail.data ->> 'cents')::bigint))) end
      from public.payments p left join public.invoices i on i.id = p.invoice where p.reference = p_mail.data ->> 'reference'), '{}'))
$$;

-- Messages that are due, for the caller to send while its lease lasts: [{id, address, kind, data, attempts, created_at}].
create function public.claim_mails(p_limit integer, p_lease_seconds numeric) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.mails where next_at <= now() order by next_at, id limit greatest(0, least(p_limit, 100)) for no key update skip locked
  ), claimed as (
    update public.mails m set attempts = attempts + 1, next_at = now() + make_interval(secs => p_lease_seconds) from due where m.id = due.id
    returning m.id, fishserve.mail_json(m) as mail
  )
  select coalesce(jsonb_agg(mail order by id), '[]') from claimed
$$;

-- What came of an attempt: {left}, whether there is another. `error` null: it was sent. `final`: no attempt can help.
create function public.end_mail(p_mail_id bigint, p_attempt integer, p_error text default null, p_final boolean default false) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  if p_error is null then
    delete from public.mails where id = p_mail_id;
  else
    delete from public.mails where id = p_mail_id and attempts = p_attempt and (p_final or fishserve.retry_pause(attempts) is null);
    update public.mails set next_at = now() + fishserve.retry_pause(attempts) where id = p_mail_id and attempts = p_attempt;
  end if;
  return jsonb_build_object('left', exists (select from public.mails where id = p_mail_id));
end $$;

-- Messages that nobody has sent for four days: {expired}. Where no mail is set up, nobody ever does.
create function public.expire_mails() returns jsonb
language sql security definer set search_path = '' as $$
  with gone as (delete from public.mails where created_at < now() - interval '4 days' returning 1)
  select jsonb_build_object('expired', count(*)) from gone
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.claim_mails, public.end_mail, public.expire_mails from public, anon, authenticated;
grant execute on function public.claim_mails, public.end_mail, public.expire_mails to service_role;

insert into fishserve.migrations (name) values ('20261128000400_mail');

-- 20261128000500_put_off.sql

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

-- 20261128000510_acceptances.sql

-- Which version of the terms and of the privacy policy a user has accepted, and when. Rows stay when the account is closed: they prove the contract,
-- and name nobody by then.

create function fishserve.append_only() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception 'the table % is append-only', tg_table_name;
end $$;

create table public.acceptances (
  id bigint generated always as identity primary key,
  user_id uuid not null references public.profiles (id),
  document text not null check (document in ('terms', 'privacy')),
  version text not null check (char_length(version) between 1 and 100),
  at timestamptz not null default now(),
  unique (user_id, document, version)
);
create trigger append_only before update or delete on public.acceptances for each row execute function fishserve.append_only();
create trigger append_only_all before truncate on public.acceptances for each statement execute function fishserve.append_only();

alter table public.acceptances enable row level security;
revoke all on public.acceptances from anon, authenticated, service_role;
create policy "owners read" on public.acceptances for select to authenticated using ((select auth.uid()) = user_id);
grant select on public.acceptances to authenticated, service_role;

-- [{document, version, at}], the newest first.
create function public.list_acceptances(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object('document', document, 'version', version, 'at', at) order by id desc), '[]')
  from public.acceptances where user_id = p_user_id
$$;

-- Accepts {document: version, ...}, each once, and answers as list_acceptances.
create function public.accept_documents(p_user_id uuid, p_versions jsonb) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform fishserve.open_profile(p_user_id);
  insert into public.acceptances (user_id, document, version) select p_user_id, key, value from jsonb_each_text(p_versions) order by key
  on conflict do nothing;
  return public.list_acceptances(p_user_id);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.list_acceptances, public.accept_documents from public, anon, authenticated;
grant execute on function public.list_acceptances, public.accept_documents to service_role;

insert into fishserve.migrations (name) values ('20261128000510_acceptances');

-- 20261128000520_voice_consents.sql

-- Who said that the person whose voice it is had agreed, when, and in which version of the wording. Rows outlive the voice: speech made with it
-- may still be heard somewhere.

create table public.voice_consents (
  voice_id uuid primary key, -- of cloned_voices, while there is such a row
  user_id uuid not null references public.profiles (id),
  version text not null check (char_length(version) between 1 and 100),
  at timestamptz not null default now()
);
create index voice_consents_of_user on public.voice_consents (user_id, at);
create trigger append_only before update or delete on public.voice_consents for each row execute function fishserve.append_only();
create trigger append_only_all before truncate on public.voice_consents for each statement execute function fishserve.append_only();

alter table public.voice_consents enable row level security;
revoke all on public.voice_consents from anon, authenticated, service_role;
create policy "owners read" on public.voice_consents for select to authenticated using ((select auth.uid()) = user_id);
grant select on public.voice_consents to authenticated, service_role;

-- As before, with the version of the consent's wording, which is null for a program that knows of none.
drop function public.create_voice;
create function public.create_voice(
  p_user_id uuid, p_name text, p_transcript text, p_content_type text, p_bytes bigint, p_consent text default null
) returns jsonb
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
  if p_consent is not null then insert into public.voice_consents (voice_id, user_id, version) values (v_id, p_user_id, p_consent); end if;
  return jsonb_build_object('voice', to_jsonb(v_voice));
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.create_voice from public, anon, authenticated;
grant execute on function public.create_voice to service_role;

insert into fishserve.migrations (name) values ('20261128000520_voice_consents');

-- 20261128000530_blocked_voices.sql

-- Voices that the operator has blocked: by the voice's id, or by the SHA-256 of a clip, whoever adds it. A blocked voice is not spoken, and a blocked
-- clip is not added. Its user may still delete it; the blocklist keeps the hash.

create table public.blocked_voices (
  id bigint generated always as identity primary key,
  voice_id uuid unique,
  sha256 text check (sha256 ~ '^[0-9a-f]{64}$'),
  created_at timestamptz not null default now(),
  check (voice_id is not null or sha256 is not null)
);
create index blocked_voices_by_clip on public.blocked_voices (sha256);
alter table public.blocked_voices enable row level security;
revoke all on public.blocked_voices from anon, authenticated, service_role;
create policy "the service reads" on public.blocked_voices for select to service_role using (true);
grant select on public.blocked_voices to service_role;

alter table public.cloned_voices drop constraint cloned_voices_status_check;
alter table public.cloned_voices add constraint cloned_voices_status_check
  check (status in ('pending', 'ready', 'refused', 'blocked', 'deleted')) not valid;
alter table public.cloned_voices validate constraint cloned_voices_status_check;
create index cloned_voices_by_clip on public.cloned_voices (sha256) where sha256 is not null;

create function fishserve.is_blocked(p_voice_id uuid, p_sha256 text) returns boolean
language sql stable set search_path = '' as $$
  select exists (select from public.blocked_voices where voice_id = p_voice_id or sha256 = p_sha256)
$$;

-- A clip that is confirmed while an operator blocks it is seen by one of the two: both take this lock first, the operator alone.
create function fishserve.refuse_blocked_clip() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform pg_advisory_xact_lock_shared(hashtextextended('blocked voices', 0));
  if fishserve.is_blocked(new.id, new.sha256) then
    new.status := 'refused';
    new.reason := 'this voice is blocked by the operator of this service';
    perform fishserve.give_up_object(new.object_key, greatest(now(), new.created_at + interval '15 minutes'));
  end if;
  return new;
end $$;
create trigger refuse_blocked_clip before update of status on public.cloned_voices for each row
  when (old.status = 'pending' and new.status = 'ready') execute function fishserve.refuse_blocked_clip();

-- {sha256, voices, action}: `voice` is the id of a voice or the SHA-256 of a clip; `voices` are those that can no longer be spoken.
create function public.admin_block_voice(p_actor text, p_reason text, p_voice text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_asked text := lower(btrim(p_voice));
  v_voice public.cloned_voices;
  v_sha256 text;
  v_voices jsonb;
  v_action bigint;
begin
  perform pg_advisory_xact_lock(hashtextextended('blocked voices', 0));
  if v_asked ~ '^[0-9a-f]{64}$' then
    v_sha256 := v_asked;
  elsif v_asked ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
    select * into v_voice from public.cloned_voices where id = v_asked::uuid and status <> 'deleted';
    if not found then raise sqlstate 'PT404' using message = format('there is no voice %s', v_asked); end if;
    v_sha256 := v_voice.sha256;
  else
    raise sqlstate 'PT422' using message = 'a voice is named by its id, a clip by its SHA-256 of 64 digits and letters a to f';
  end if;
  if exists (select from public.blocked_voices where voice_id = v_voice.id or v_voice.id is null and sha256 = v_sha256) then
    raise sqlstate 'PT409' using message = format('%s is blocked already', v_asked);
  end if;
  v_action := fishserve.record_action(p_actor, 'block voice', v_asked, v_voice.user_id, p_reason, jsonb_build_object('sha256', v_sha256));
  insert into public.blocked_voices (voice_id, sha256) values (v_voice.id, v_sha256);
  with blocked as (
    update public.cloned_voices set status = 'blocked', reason = 'this voice is blocked by the operator of this service'
    where status = 'ready' and (id = v_voice.id or sha256 = v_sha256) returning id
  )
  select coalesce(jsonb_agg(id order by id), '[]') into v_voices from blocked;
  return jsonb_build_object('sha256', v_sha256, 'voices', v_voices, 'action', v_action);
end $$;

-- {voices, action}: those that may be spoken again.
create function public.admin_unblock_voice(p_actor text, p_reason text, p_voice text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_asked text := lower(btrim(p_voice));
  v_voice public.cloned_voices;
  v_name text;
  v_voices jsonb := '[]'::jsonb;
  v_action bigint;
begin
  perform pg_advisory_xact_lock(hashtextextended('blocked voices', 0));
  delete from public.blocked_voices where voice_id::text = v_asked or sha256 = v_asked;
  if not found then raise sqlstate 'PT404' using message = format('%s is not blocked', v_asked); end if;
  v_action := fishserve.record_action(p_actor, 'unblock voice', v_asked, (select user_id from public.cloned_voices where id::text = v_asked), p_reason);
  for v_voice in select * from public.cloned_voices v where status = 'blocked' and not fishserve.is_blocked(v.id, v.sha256) order by id for update loop
    v_name := v_voice.name; -- its user may have given it to another voice meanwhile
    if exists (select from public.cloned_voices where user_id = v_voice.user_id and lower(name) = lower(v_name) and status in ('pending', 'ready')) then
      v_name := left(v_name, 60) || ' ' || v_voice.id;
    end if;
    update public.cloned_voices set status = 'ready', reason = null, name = v_name where id = v_voice.id;
    v_voices := v_voices || to_jsonb(v_voice.id);
  end loop;
  return jsonb_build_object('voices', v_voices, 'action', v_action);
end $$;

-- As before, and the clip of a blocked voice is known and needed, too: its user may still delete it, and the operator may lift the block.
create or replace function public.known_objects(p_after text default '', p_limit integer default 1000) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(o) order by o.key collate "C"), '[]') from (
    select key, bool_or(needed) as needed from (
      (select object_key collate "C" as key, true as needed from public.jobs where object_key collate "C" > p_after
        order by 1 limit greatest(1, least(p_limit, 1000)))
      union all
      (select object_key collate "C", status <> 'pending' from public.cloned_voices
        where status in ('pending', 'ready', 'blocked') and object_key collate "C" > p_after order by 1 limit greatest(1, least(p_limit, 1000)))
      union all
      (select key collate "C", false from public.deleted_objects where key collate "C" > p_after order by 1 limit greatest(1, least(p_limit, 1000)))
    ) k group by key order by key collate "C" limit greatest(1, least(p_limit, 1000))
  ) o
$$;

-- {known, needed}: the same of one object.
create or replace function public.known_object(p_key text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'known', exists (select from public.jobs where object_key = p_key) or exists (select from public.deleted_objects where key = p_key)
      or exists (select from public.cloned_voices where object_key = p_key and status in ('pending', 'ready', 'blocked')),
    'needed', exists (select from public.jobs where object_key = p_key)
      or exists (select from public.cloned_voices where object_key = p_key and status in ('ready', 'blocked')))
$$;

-- [{voice_id, sha256, created_at, voices, actor, reason}], the newest first; `voices`: how many of them users have.
create function public.admin_blocked_voices(p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(b) - 'id' || jsonb_build_object(
    'voices', (select count(*) from public.cloned_voices v where v.status = 'blocked' and (v.id = b.voice_id or v.sha256 = b.sha256)),
    'actor', a.actor, 'reason', a.reason) order by b.id desc), '[]')
  from (select * from public.blocked_voices order by id desc limit greatest(0, least(coalesce(p_limit, 50), 1000))) b
  left join lateral (
    select actor, reason from public.admin_actions
    where action = 'block voice' and target = coalesce(b.voice_id::text, b.sha256) order by id desc limit 1
  ) a on true
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.admin_block_voice, public.admin_unblock_voice, public.admin_blocked_voices from public, anon, authenticated;
grant execute on function public.admin_block_voice, public.admin_unblock_voice, public.admin_blocked_voices to service_role;

insert into fishserve.migrations (name) values ('20261128000530_blocked_voices');

-- 20261128000540_reports.sql

-- Reports of misuse: anybody may report speech or a voice, with or without an account.

create table public.reports (
  id uuid primary key default gen_random_uuid(),
  kind text not null check (kind in ('speech', 'voice')),
  subject text not null check (char_length(subject) between 1 and 500), -- where it is heard, or an id
  details text not null check (char_length(details) between 1 and 5000),
  contact text check (char_length(contact) between 1 and 320),
  user_id uuid references public.profiles (id), -- who reported it, if signed in
  created_at timestamptz not null default now(),
  closed_at timestamptz,
  closed_by text,
  outcome text,
  check ((closed_at is null) = (outcome is null) and (closed_at is null) = (closed_by is null))
);
create index reports_by_time on public.reports (created_at);
create index reports_of_user on public.reports (user_id) where user_id is not null;
create index reports_closed on public.reports (closed_at) where closed_at is not null;
alter table public.reports enable row level security;
revoke all on public.reports from anon, authenticated, service_role;
create policy "the service reads" on public.reports for select to service_role using (true);
grant select on public.reports to service_role;

alter table public.settings add column report_days integer default 1095 check (report_days > 0); -- how long a closed report is kept; null: for ever

create function public.report_misuse(p_kind text, p_subject text, p_details text, p_contact text default null, p_user_id uuid default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_profile public.profiles;
begin
  if p_user_id is not null then v_profile := fishserve.lock_profile(p_user_id); end if;
  insert into public.reports (kind, subject, details, contact, user_id)
    values (p_kind, btrim(p_subject), btrim(p_details), nullif(btrim(p_contact), ''), case when v_profile.closed_at is null then p_user_id end)
    returning id into v_id;
  return jsonb_build_object('id', v_id);
exception when check_violation then
  raise sqlstate 'PT422' using message = 'a report is of speech or a voice, says which in 1 to 500 characters and why in 1 to 5000, with an address of at most 320';
end $$;

-- [report], the oldest open one first; with `closed` also those that are closed, the newest first.
create function public.admin_reports(p_closed boolean default false, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(r) order by r.closed_at desc nulls first, r.created_at, r.id), '[]') from (
    select * from public.reports where p_closed or closed_at is null
    order by closed_at desc nulls first, created_at, id limit greatest(0, least(coalesce(p_limit, 50), 1000))
  ) r
$$;

-- {report, action}: the reason is the outcome.
create function public.admin_close_report(p_actor text, p_reason text, p_report_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_report public.reports;
  v_action bigint;
begin
  select * into v_report from public.reports where id = p_report_id for update;
  if not found then raise sqlstate 'PT404' using message = format('there is no report %s', p_report_id); end if;
  if v_report.closed_at is not null then
    raise sqlstate 'PT409' using message = format('the report %s was closed by %s: %s', p_report_id, v_report.closed_by, v_report.outcome);
  end if;
  v_action := fishserve.record_action(p_actor, 'close report', p_report_id::text, v_report.user_id, p_reason);
  update public.reports set closed_at = now(), closed_by = btrim(p_actor), outcome = btrim(p_reason) where id = p_report_id returning * into v_report;
  return jsonb_build_object('report', to_jsonb(v_report), 'action', v_action);
end $$;

-- Closed reports that have been kept long enough: {expired}, at most 1000.
create function public.expire_reports() returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.reports where closed_at < now() - make_interval(days => (select report_days from public.settings))
    order by closed_at limit 1000 for update skip locked
  ), expired as (
    delete from public.reports r using due where r.id = due.id returning 1
  )
  select jsonb_build_object('expired', count(*)) from expired
$$;

-- A closed account is no longer the reporter, and is not written to. What was reported is about somebody else and stays until it is dealt with.
create function fishserve.forget_reporter() returns trigger
language plpgsql set search_path = '' as $$
begin
  update public.reports set user_id = null, contact = null where user_id = new.id;
  return null;
end $$;
create trigger forget_reporter after update of closed_at on public.profiles for each row
  when (old.closed_at is null and new.closed_at is not null) execute function fishserve.forget_reporter();

-- {open, oldest_seconds}
create function public.report_figures() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('open', count(*), 'oldest_seconds', coalesce(extract(epoch from now() - min(created_at)), 0))
  from public.reports where closed_at is null
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.report_misuse, public.admin_reports, public.admin_close_report, public.expire_reports, public.report_figures
  from public, anon, authenticated;
grant execute on function public.report_misuse, public.admin_reports, public.admin_close_report, public.expire_reports, public.report_figures to service_role;

insert into fishserve.migrations (name) values ('20261128000540_reports');

-- 20261128000600_cheaper_jobs.sql

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

-- 20261128000700_streams.sql

-- A job whose client listens belongs to the process that streams it from its first moment: otherwise another claim, between its making and its stream's, had
-- it spoken into a file, and the client heard nothing until all of it was made.

create function public.request_speech(
  p_user_id uuid, p_idempotency_key text, p_fingerprint text, p_text text, p_token_hash text,
  p_voice_id uuid default null, p_options jsonb default '{}', p_api_key_id uuid default null, p_letters numeric default null, p_silence numeric default 0,
  p_lease_seconds numeric default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_taken jsonb := public.process_audio_request(p_user_id, p_idempotency_key, p_fingerprint, p_text, p_token_hash, p_voice_id, p_options, p_api_key_id,
    p_letters, p_silence);
begin
  return v_taken || jsonb_build_object('claimed', case when p_lease_seconds > 0 and v_taken -> 'job' ->> 'status' in ('queued', 'running')
    then public.claim_job((v_taken -> 'job' ->> 'id')::uuid, p_lease_seconds) end);
end $$;

revoke execute on function public.request_speech from public, anon, authenticated;
grant execute on function public.request_speech to service_role;

insert into fishserve.migrations (name) values ('20261128000700_streams');

update fishserve.migrations set sha256 = '1679cce545cd037e30c2d61c9b7fc9f3b481614b792c8df75edf66d38636dfb8' where name = '20261125000100_foundation';
update fishserve.migrations set sha256 = '90462c0a46efeac033064df317538c32e1809f1401b2269e7d40140412508e9c' where name = '20261125000200_prices';
update fishserve.migrations set sha256 = 'ae16640a84c56d153a8357083b3d9202100936ba29e755ddfa583b013fb2faac' where name = '20261125000300_profiles';
update fishserve.migrations set sha256 = '77bd6dcc41db8cafff6fd103eb4a34ada2e2ef174b17bef9564a352263de780a' where name = '20261125000400_ledger';
update fishserve.migrations set sha256 = '5655b55615ab8c788fc17599691dc9752a7fd64fc48f0d9fa28b866e58242843' where name = '20261125000500_sign_up';
update fishserve.migrations set sha256 = '574a191e283d65ee310c5cc9f84a8c90ede60bbec1bd68b398acc320e3d4cbe9' where name = '20261125000600_objects';
update fishserve.migrations set sha256 = '78818d09354366455de715f064d231080e7bb9603234a83e340c0c980f4fa800' where name = '20261125000700_voices';
update fishserve.migrations set sha256 = 'fa12e805e4a9b56860c4afed823647f87471bed0374e4b5d6c05c48b8b83479d' where name = '20261125000800_api_keys';
update fishserve.migrations set sha256 = 'f53de364a16930fdcb032698a81d30fc7c51d8542c7e0698e66cec200c67ee20' where name = '20261125000900_jobs';
update fishserve.migrations set sha256 = 'caef57ea89256696d4cc5cf7e357f3ba26ea3a02c9ce5715e20c8c26cbab394c' where name = '20261125001000_payments';
update fishserve.migrations set sha256 = 'e038f01310968b07dc3de89809a66e496ce1f736a36be1c90c1ed921b9a18d06' where name = '20261125001100_accounts';
update fishserve.migrations set sha256 = '6ba6357b8c02e02bcd0789cda1cc955c548a1f6c0679d876286401399aa2c2f2' where name = '20261125001200_health';
update fishserve.migrations set sha256 = 'da8412b8cd2cde2c3e8ae81b13669cc274ae452ace776ca8a9d7a1e781987f61' where name = '20261126000100_checksums';
update fishserve.migrations set sha256 = '1e3d9910666327353d6b0cef592827bd1f608ba65750783da07adb8f2518ee5b' where name = '20261126000200_fair_jobs';
update fishserve.migrations set sha256 = 'dd3f70b818b5cfeb8059115fccea713d12bb4acffb39da12c4465132b3932952' where name = '20261126000300_prices';
update fishserve.migrations set sha256 = '1283ecae9a3ca2f2186d71d24bb9bf544b167d3b2a757abfbddce38657d76415' where name = '20261126000400_sign_up_grant';
update fishserve.migrations set sha256 = '0957f8120b9538d458c5ed98c5037e7d8331ad0bcf76adecc99433e32687ed13' where name = '20261126000500_money';
update fishserve.migrations set sha256 = '3c98b861eb4f712a962f3f0e8dc797b5366df9b701ba78e31250e95d7afc92dd' where name = '20261127000100_plans';
update fishserve.migrations set sha256 = '41cc0ea8d5fb4ad911028af3aad8d627a4daa1912d27dd8dacd8e837bf0202c0' where name = '20261127000200_lots';
update fishserve.migrations set sha256 = 'c627c356a1260ef84e8515da92a6b782d0057492239284a7456da03c8ecf41b0' where name = '20261127000300_subscriptions';
update fishserve.migrations set sha256 = 'f71e6c7e0cd1c5a8aa030a4ef788006803f67d8c2514ed65ac73b85d35489e2b' where name = '20261127000400_keys';
update fishserve.migrations set sha256 = '490f61c6590b53dd43ff4dd744747905cda3e0f7ed581a8903f0b63b66028352' where name = '20261127000500_admin_actions';
update fishserve.migrations set sha256 = 'b22981c99348c7b4f05605bd86f1c91d4e3c6f53b824dbb31e1eee3e8765f417' where name = '20261127000600_desk';
update fishserve.migrations set sha256 = '195c7820807dc80e0fb6cc4afcb0276e35c1b54ee9549f47f72c74d53dd82320' where name = '20261127000700_books';
update fishserve.migrations set sha256 = 'af88907cec19e7381b4b01371d0090b5865aff27fd44fa24f98edefb8e4a9bb3' where name = '20261127000900_operating_figures';
update fishserve.migrations set sha256 = '65a97b1a80b640bf718f72f75e7b728d2ee2fe6c2ec71313b16161fbc9ce22c5' where name = '20261127001000_retention';
update fishserve.migrations set sha256 = '53416c6f4248651f73d225ef31dcb29b00d77428c6bae60cf838c6562a730f60' where name = '20261128000100_desk_plans';
update fishserve.migrations set sha256 = '54dbf2927916e97581c4731d8783087b5dffcbe52110a6d975aee72b92915ce0' where name = '20261128000300_webhooks';
update fishserve.migrations set sha256 = '912dd74a0cde9e28bb5dc9caac07b20e665e6f93de08ae88f50a1a2dc7a0c1c6' where name = '20261128000400_mail';
update fishserve.migrations set sha256 = '6270a68b3b05e52fefb2dddb03ba1cced66546a47e815875ddb6bbb5d102e2e1' where name = '20261128000500_put_off';
update fishserve.migrations set sha256 = '8a78cf5c94f4d23adf6caa5574dc27cd7a11dc85dfbee21d591074b40594853f' where name = '20261128000510_acceptances';
update fishserve.migrations set sha256 = '705749720d40da9d412f8744a1aba8f54012bf5c4c9cab3e551ff0d1de332249' where name = '20261128000520_voice_consents';
update fishserve.migrations set sha256 = '431551cbe848f65b3cf090b7b15db9139eab0cdfa2825d8c97dfcc5297926da6' where name = '20261128000530_blocked_voices';
update fishserve.migrations set sha256 = '5ccfebc20fbb72120eff012147c94757eec6cce458cefa6a971dc233e51e7e8d' where name = '20261128000540_reports';
update fishserve.migrations set sha256 = '7fcd0542778cb39db16e52e5611a2b5b4e799649173a6741bbb17951ec016662' where name = '20261128000600_cheaper_jobs';
update fishserve.migrations set sha256 = 'd735a3d0b97db2ee0195561fef4dea55749ac32e8d0e682270ce877641f040d6' where name = '20261128000700_streams';

commit;
