\ir common.psql
select plan(13);
select clients_cannot_write('key_usage');

insert into public.key_usage (key_id, day, credits) select id, current_date, 1 from public.api_keys;
select become('anon');
select throws_ok('select * from public.key_usage', '42501', null, 'a stranger reads none');
select become('authenticated', :ann);
select results_eq('select count(*) from public.key_usage', array[1::bigint], 'Ann reads what her key used');
select become('authenticated', '00000000-0000-0000-0000-00000000000c');
select is_empty('select * from public.key_usage', 'who has no key reads none');
select become('service_role');
select results_eq('select count(*) from public.key_usage', array[2::bigint], 'the service reads all');
select become('postgres');
select is_empty($$select * from public.api_keys where expires_at is not null or monthly_credits is not null or networks is not null$$, 'a key has no limits');
select throws_ok($$select public.create_api_key('00000000-0000-0000-0000-00000000000a', 'k', 'p', repeat('0', 64), array['speak'], now())$$, 'PT422', null, 'a key ends later than now');
select * from finish();
rollback;
