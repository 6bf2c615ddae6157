\ir common.psql
select plan(11);
select clients_cannot_read('stripe_events');
select clients_cannot_write('stripe_events');
select * from finish();
rollback;
