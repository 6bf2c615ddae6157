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
