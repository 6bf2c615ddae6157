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
