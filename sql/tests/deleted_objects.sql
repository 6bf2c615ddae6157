\ir common.psql
select plan(11);
select clients_cannot_read('deleted_objects');
select clients_cannot_write('deleted_objects');
select * from finish();
rollback;
