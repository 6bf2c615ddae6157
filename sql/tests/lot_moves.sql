\ir common.psql
select plan(11);
select clients_cannot_read('lot_moves');
select clients_cannot_write('lot_moves');
select * from finish();
rollback;
