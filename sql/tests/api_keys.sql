\ir common.psql
select plan(13);
select owners_read_their_own('api_keys');
select clients_cannot_write('api_keys');

select become('authenticated', :ann);
select throws_ok('select hash from public.api_keys', '42501', null, 'Ann cannot read hash');
select throws_ok('select * from public.api_keys', '42501', null, 'nor all columns at once');
select become('postgres');
select * from finish();
rollback;
