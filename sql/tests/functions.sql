\ir common.psql
-- Every function of the two schemas, by a loop over the catalogue: who may execute it, and with which search_path.
select plan((select 7 * count(*)::integer from pg_proc where pronamespace = 'public'::regnamespace)
  + (select 3 * count(*)::integer from pg_proc where pronamespace = 'fishserve'::regnamespace) + 2);

select cmp_ok(count(*), '>=', 40::bigint, 'there are functions to look at') from pg_proc where pronamespace = 'public'::regnamespace;
select is(public.health() -> 'unprotected', '[]', 'health() sees nothing unprotected') ;

select unnest(array[
  ok(prosecdef, format('%s runs with its owner''s rights', proname)),
  ok(proconfig @> array['search_path=""'], format('%s has an empty search_path', proname)),
  ok(not has_function_privilege('anon', oid, 'execute'), format('anon cannot call %s', proname)),
  ok(not has_function_privilege('authenticated', oid, 'execute'), format('a user cannot call %s', proname)),
  ok(not exists (select from aclexplode(proacl) where grantee = 0), format('the public cannot call %s', proname)),
  ok(has_function_privilege('service_role', oid, 'execute'), format('the service can call %s', proname)),
  is(prorettype, 'jsonb'::regtype::oid, format('%s returns jsonb', proname))
]) from pg_proc where pronamespace = 'public'::regnamespace order by proname;

select unnest(array[
  ok(proconfig @> array['search_path=""'], format('%s has an empty search_path', proname)),
  ok(not has_schema_privilege('anon', 'fishserve', 'usage') and not has_schema_privilege('authenticated', 'fishserve', 'usage')
    and not has_schema_privilege('service_role', 'fishserve', 'usage'), format('no role can reach %s', proname)),
  ok(not exists (select from aclexplode(proacl) where grantee = 0), format('the public cannot call %s', proname))
]) from pg_proc where pronamespace = 'fishserve'::regnamespace order by proname;
select * from finish();
rollback;
