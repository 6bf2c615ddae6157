\ir common.psql
select plan(11);
select owners_read_their_own('credit_lots');
select clients_cannot_write('credit_lots');
select * from finish();
rollback;
