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
