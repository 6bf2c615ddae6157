\ir common.psql
select plan(11);
select clients_cannot_read('mails');
select clients_cannot_write('mails');
select * from finish();
rollback;
