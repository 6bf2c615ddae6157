-- Links that sign in only the browser that asked for them (PKCE, RFC 7636): the link leads back with a code, and the code is worth a session only with
-- the secret of which the browser sent a hash when it asked. So nobody is signed in by a stranger's link, to a stranger's account.

alter table auth.one_time_tokens add column challenge text; -- of the browser that asked; null: whoever opens the link is signed in

create table auth.codes (
    hash text primary key,
    user_id uuid not null references auth.users on delete cascade,
    challenge text not null,
    expires_at timestamptz not null
);
create index codes_user on auth.codes (user_id);
alter table auth.codes enable row level security;

drop function public.local_create_token;
create function public.local_create_token(p_user_id uuid, p_purpose text, p_hash text, p_seconds integer, p_challenge text default null)
returns jsonb language plpgsql security definer set search_path = '' as $$
begin
    delete from auth.one_time_tokens where user_id = p_user_id and purpose = p_purpose;
    insert into auth.one_time_tokens (hash, user_id, purpose, expires_at, challenge)
    values (p_hash, p_user_id, p_purpose, now() + make_interval(secs => p_seconds), p_challenge);
    return '{}'::jsonb;
end $$;

-- {user, challenge} of a token, the user's address confirmed by it, or null. As before.
create or replace function public.local_use_token(p_purpose text, p_hash text)
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
    return jsonb_build_object('user', auth.public_user(known), 'challenge', token.challenge);
end $$;

create function public.local_create_code(p_user_id uuid, p_hash text, p_challenge text, p_seconds integer)
returns jsonb language sql security definer set search_path = '' as $$
    with made as (
        insert into auth.codes (hash, user_id, challenge, expires_at) values (p_hash, p_user_id, p_challenge, now() + make_interval(secs => p_seconds)))
    select '{}'::jsonb
$$;

-- {user, challenge} of a code, or null. A code is good once, whether its secret was right or not.
create function public.local_use_code(p_hash text)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare code auth.codes; known auth.users;
begin
    delete from auth.codes where expires_at < now();
    delete from auth.codes where hash = p_hash returning * into code;
    if code.hash is null then
        return null;
    end if;
    select * into known from auth.users where id = code.user_id;
    return jsonb_build_object('user', auth.public_user(known), 'challenge', code.challenge);
end $$;

do $$
declare f regprocedure;
begin
    for f in select p.oid::regprocedure from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'public' and p.proname like 'local\_%'
    loop
        execute format('revoke all on function %s from public, anon, authenticated', f);
        execute format('grant execute on function %s to service_role', f);
    end loop;
end $$;
