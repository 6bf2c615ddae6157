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
