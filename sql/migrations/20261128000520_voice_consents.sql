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
