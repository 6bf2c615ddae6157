\ir common.psql
insert into public.deleted_customers (customer) values ('cus_gone');
select plan(11);
select clients_cannot_read('deleted_customers');
select clients_cannot_write('deleted_customers');
select * from finish();
rollback;
