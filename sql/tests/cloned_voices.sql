\ir common.psql
select plan(14);
select owners_read_their_own('cloned_voices');
select clients_cannot_write('cloned_voices');

select become('authenticated', :ann);
select throws_ok('select object_key from public.cloned_voices', '42501', null, 'Ann cannot read object_key');
select throws_ok('select sha256 from public.cloned_voices', '42501', null, 'Ann cannot read sha256');
select throws_ok('select * from public.cloned_voices', '42501', null, 'nor all columns at once');
select become('postgres');
select * from finish();
rollback;
