\ir common.psql
select plan(11);
select owners_read_their_own('invoices');
select clients_cannot_write('invoices');
select * from finish();
rollback;
