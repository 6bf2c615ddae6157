\ir common.psql
select plan(11);
select owners_read_their_own('usage');
select clients_cannot_write('usage');
select * from finish();
rollback;
