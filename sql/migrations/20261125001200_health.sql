-- What /readyz and `fishserve saas check` look at.

-- {schema_version, rls_ok, definer_ok, unprotected}: the last names tables without row level security, and functions that run with the owner's
-- rights while a client may call them or their search_path is open.
create function public.health() returns jsonb
language sql stable security definer set search_path = '' as $$
  with tables as (
    select c.relname as name from pg_catalog.pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
  ), functions as (
    select p.proname as name from pg_catalog.pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.prosecdef and (
      not coalesce(p.proconfig, '{}') @> array['search_path=""']
      or has_function_privilege('anon', p.oid, 'execute') or has_function_privilege('authenticated', p.oid, 'execute'))
  )
  select jsonb_build_object(
    'schema_version', (select max(name) from fishserve.migrations),
    'rls_ok', not exists (select from tables),
    'definer_ok', not exists (select from functions),
    'unprotected', (select coalesce(jsonb_agg(name order by name), '[]') from (select name from tables union all select name from functions) u))
$$;

revoke execute on function public.health from public, anon, authenticated;
grant execute on function public.health to service_role;

insert into fishserve.migrations (name) values ('20261125001200_health');
