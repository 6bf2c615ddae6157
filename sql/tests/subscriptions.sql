\ir common.psql
select plan(11);
select owners_read_their_own('subscriptions');
select clients_cannot_write('subscriptions');
select * from finish();
rollback;
