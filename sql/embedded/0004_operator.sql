-- Sessions say what Supabase's say of an operator: a role, in app_metadata, which users cannot write (`raw_app_meta_data` of auth.users); and how and when
-- they began with a password or a link (`amr`), which a renewal does not change.

create or replace function auth.public_user(u auth.users) returns jsonb
language sql stable security definer set search_path = '' as $$
    select jsonb_build_object(
        'id', u.id, 'aud', 'authenticated', 'role', 'authenticated', 'email', u.email,
        'email_confirmed_at', u.email_confirmed_at, 'confirmed_at', u.email_confirmed_at, 'last_sign_in_at', u.last_sign_in_at,
        'app_metadata', u.raw_app_meta_data || jsonb_build_object('provider', 'email', 'providers', jsonb_build_array('email')),
        'user_metadata', u.raw_user_meta_data, 'identities', '[]'::jsonb, 'created_at', u.created_at, 'is_anonymous', false)
$$;

alter table auth.sessions add column method text not null default 'otp' check (method in ('password', 'otp'));

-- A session with its first refresh token: {user, session_id, method, began}, the last in seconds.
drop function public.local_open_session;
create function public.local_open_session(p_user_id uuid, p_refresh_hash text, p_method text default 'otp')
returns jsonb language plpgsql security definer set search_path = '' as $$
declare known auth.users; session auth.sessions;
begin
    update auth.users set last_sign_in_at = now() where id = p_user_id returning * into known;
    insert into auth.sessions (user_id, method) values (p_user_id, p_method) returning * into session;
    insert into auth.refresh_tokens (hash, session_id) values (p_refresh_hash, session.id);
    return jsonb_build_object('user', auth.public_user(known), 'session_id', session.id, 'method', session.method,
        'began', floor(extract(epoch from session.created_at)));
end $$;

-- As before, with `method` and `began`.
create or replace function public.local_renew_session(p_old_hash text, p_new_hash text)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare token auth.refresh_tokens; known auth.users; session auth.sessions;
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
    select * into session from auth.sessions where id = token.session_id;
    select * into known from auth.users where id = session.user_id;
    return jsonb_build_object('user', auth.public_user(known), 'session_id', session.id, 'method', session.method,
        'began', floor(extract(epoch from session.created_at)));
end $$;

revoke execute on function public.local_open_session from public, anon, authenticated;
grant execute on function public.local_open_session to service_role;
