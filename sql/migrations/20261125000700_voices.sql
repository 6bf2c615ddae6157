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
