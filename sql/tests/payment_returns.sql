\ir common.psql
select plan(11);
select clients_cannot_read('payment_returns');
select clients_cannot_write('payment_returns');
select * from finish();
rollback;
