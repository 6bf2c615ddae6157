\ir common.psql
select plan(11);
select clients_cannot_read('settings');
select clients_cannot_write('settings');
select * from finish();
rollback;
