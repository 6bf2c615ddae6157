-- Sign-in of embedded mode, beside auth.users: what saas/auth/local.py asks for. At Supabase this is GoTrue's, and this file never goes there.
-- Tokens are kept as SHA-256 (hex), passwords as scrypt's hash; whoever reads these tables can use neither.

create table auth.sessions (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references auth.users on delete cascade,
    created_at timestamptz not null default now()
);
create index sessions_user on auth.sessions (user_id);

-- A used refresh token stays, so that its second use is known for what it is: the session was copied.
create table auth.refresh_tokens (
    hash text primary key,
    session_id uuid not null references auth.sessions on delete cascade,
    used_at timestamptz
);
create index refresh_tokens_session on auth.refresh_tokens (session_id);

create table auth.one_time_tokens (
    hash text primary key,
    user_id uuid not null references auth.users on delete cascade,
    purpose text not null check (purpose in ('signup', 'magiclink', 'recovery')),
    expires_at timestamptz not null
);
create index one_time_tokens_user on auth.one_time_tokens (user_id);

create function auth.public_user(u auth.users) returns jsonb
language sql stable security definer set search_path = '' as $$
    select jsonb_build_object(
        'id', u.id, 'aud', 'authenticated', 'role', 'authenticated', 'email', u.email,
        'email_confirmed_at', u.email_confirmed_at, 'confirmed_at', u.email_confirmed_at, 'last_sign_in_at', u.last_sign_in_at,
        'app_metadata', jsonb_build_object('provider', 'email', 'providers', jsonb_build_array('email')),
        'user_metadata', u.raw_user_meta_data, 'identities', '[]'::jsonb, 'created_at', u.created_at, 'is_anonymous', false)
$$;

-- A new user, or null when the address has one. Who never confirmed the address has no hold on it: the latest password counts.
create function public.local_create_user(p_email text, p_password_hash text, p_confirmed boolean)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare made auth.users;
begin
    insert into auth.users (id, email, encrypted_password, email_confirmed_at)
    values (gen_random_uuid(), p_email, p_password_hash, case when p_confirmed then now() end)
    on conflict (lower(email)) do update set encrypted_password = excluded.encrypted_password, email_confirmed_at = excluded.email_confirmed_at
        where users.email_confirmed_at is null
    returning * into made;
    return case when made.id is not null then auth.public_user(made) end;
end $$;

-- {user, password_hash} of an address, or null.
create function public.local_find_user(p_email text)
returns jsonb language sql stable security definer set search_path = '' as $$
    select jsonb_build_object('user', auth.public_user(u), 'password_hash', u.encrypted_password)
    from auth.users u where lower(u.email) = lower(p_email)
$$;

-- The user of a session that has not ended, or null.
create function public.local_session_user(p_user_id uuid, p_session_id uuid)
returns jsonb language sql stable security definer set search_path = '' as $$
    select auth.public_user(u) from auth.users u join auth.sessions s on s.user_id = u.id where u.id = p_user_id and s.id = p_session_id
$$;

-- A new password ends every other session.
create function public.local_update_user(p_user_id uuid, p_session_id uuid, p_password_hash text)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare changed auth.users;
begin
    update auth.users set encrypted_password = coalesce(p_password_hash, encrypted_password) where id = p_user_id returning * into changed;
    if p_password_hash is not null then
        delete from auth.sessions where user_id = p_user_id and id <> p_session_id;
        delete from auth.one_time_tokens where user_id = p_user_id;
    end if;
    return auth.public_user(changed);
end $$;

-- A session with its first refresh token: {user, session_id}.
create function public.local_open_session(p_user_id uuid, p_refresh_hash text)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare known auth.users; session uuid;
begin
    update auth.users set last_sign_in_at = now() where id = p_user_id returning * into known;
    insert into auth.sessions (user_id) values (p_user_id) returning id into session;
    insert into auth.refresh_tokens (hash, session_id) values (p_refresh_hash, session);
    return jsonb_build_object('user', auth.public_user(known), 'session_id', session);
end $$;

-- A refresh token for the next one: {user, session_id}, or null when it is not known. Two tabs may use one token at the same moment, so
-- for ten seconds its second use is good; later it ends the session, for then it was copied.
create function public.local_renew_session(p_old_hash text, p_new_hash text)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare token auth.refresh_tokens; known auth.users;
begin
    select * into token from auth.refresh_tokens where hash = p_old_hash for update;
    if token.hash is null then
        return null;
    end if;
    if token.used_at < now() - interval '10 seconds' then
        delete from auth.sessions where id = token.session_id;
        return null;
    end if;
    update auth.refresh_tokens set used_at = coalesce(used_at, now()) where hash = p_old_hash;
    insert into auth.refresh_tokens (hash, session_id) values (p_new_hash, token.session_id);
    select u.* into known from auth.users u join auth.sessions s on s.user_id = u.id where s.id = token.session_id;
    return jsonb_build_object('user', auth.public_user(known), 'session_id', token.session_id);
end $$;

-- scope: local ends this session, others all but this one, global all.
create function public.local_close_sessions(p_user_id uuid, p_session_id uuid, p_scope text)
returns jsonb language sql security definer set search_path = '' as $$
    with ended as (
        delete from auth.sessions where user_id = p_user_id
            and case p_scope when 'local' then id = p_session_id when 'others' then id <> p_session_id else true end
        returning 1)
    select jsonb_build_object('ended', count(*)) from ended
$$;

-- One live token a purpose.
create function public.local_create_token(p_user_id uuid, p_purpose text, p_hash text, p_seconds integer)
returns jsonb language plpgsql security definer set search_path = '' as $$
begin
    delete from auth.one_time_tokens where user_id = p_user_id and purpose = p_purpose;
    insert into auth.one_time_tokens (hash, user_id, purpose, expires_at)
    values (p_hash, p_user_id, p_purpose, now() + make_interval(secs => p_seconds));
    return '{}'::jsonb;
end $$;

-- The user whose token this is, his address confirmed by it, or null. A token is good once. A password that was chosen before anybody had shown
-- that the address is theirs, and is not confirmed by the link of that sign-up, may be a stranger's: it goes.
create function public.local_use_token(p_purpose text, p_hash text)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare token auth.one_time_tokens; known auth.users;
begin
    delete from auth.one_time_tokens where hash = p_hash and purpose = p_purpose returning * into token;
    if token.hash is null or token.expires_at < now() then
        return null;
    end if;
    update auth.users set email_confirmed_at = coalesce(email_confirmed_at, now()),
        encrypted_password = case when email_confirmed_at is not null or p_purpose = 'signup' then encrypted_password end
        where id = token.user_id returning * into known;
    return auth.public_user(known);
end $$;

alter table auth.sessions enable row level security;
alter table auth.refresh_tokens enable row level security;
alter table auth.one_time_tokens enable row level security;

do $$
declare f regprocedure;
begin
    for f in select p.oid::regprocedure from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where (n.nspname = 'public' and p.proname like 'local\_%') or (n.nspname = 'auth' and p.proname = 'public_user')
    loop
        execute format('revoke all on function %s from public, anon, authenticated', f);
        execute format('grant execute on function %s to service_role', f);
    end loop;
end $$;
