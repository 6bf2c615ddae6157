\ir common.psql
select plan(10);
select clients_cannot_write('prices');

update public.prices set active = false where id = (select id from public.prices order by id limit 1);
select become('anon');
select is_empty('select * from public.prices where not active', 'a stranger sees nothing that is not for sale');
select become('authenticated', :ann);
select is_empty('select * from public.prices where not active', 'nor does Ann');
select become('service_role');
select isnt_empty('select * from public.prices where not active', 'the service sees it');
select become('postgres');
select * from finish();
rollback;
