\ir common.psql
select plan(18);
select owners_read_their_own('jobs');
select clients_cannot_write('jobs');

select become('authenticated', :ann);
select throws_ok('select token_hash from public.jobs', '42501', null, 'Ann cannot read token_hash');
select throws_ok('select fingerprint from public.jobs', '42501', null, 'Ann cannot read fingerprint');
select throws_ok('select object_key from public.jobs', '42501', null, 'Ann cannot read object_key');
select throws_ok('select sha256 from public.jobs', '42501', null, 'Ann cannot read sha256');
select throws_ok('select backend_id from public.jobs', '42501', null, 'Ann cannot read backend_id');
select throws_ok('select price_id from public.jobs', '42501', null, 'Ann cannot read price_id');
select throws_ok('select * from public.jobs', '42501', null, 'nor all columns at once');
select become('postgres');
select * from finish();
rollback;
