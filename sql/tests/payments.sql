\ir common.psql
select plan(11);
select owners_read_their_own('payments');
select clients_cannot_write('payments');
select * from finish();
rollback;
