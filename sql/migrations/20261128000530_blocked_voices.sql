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
