\ir common.psql
select plan(10);
select clients_cannot_write('plans');

update public.plans set active = false where id = 'free';
select become('anon');
select is_empty('select * from public.plans where not active', 'a stranger sees nothing that is not for sale');
select become('authenticated', :ann);
select is_empty('select * from public.plans where not active', 'nor does Ann');
select become('service_role');
select isnt_empty('select * from public.plans where not active', 'the service sees it');
select become('postgres');
select * from finish();
rollback;
