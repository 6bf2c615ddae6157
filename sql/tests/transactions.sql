\ir common.psql
select plan(21);
select owners_read_their_own('transactions');
select clients_cannot_write('transactions');

select throws_ok('update public.transactions set amount = 1', 'P0001', null, 'an entry cannot be changed, not even by the owner');
select throws_ok('delete from public.transactions', 'P0001', null, 'nor deleted');
select throws_ok('truncate public.transactions cascade', 'P0001', null, 'nor all of them');
select throws_ok(format($$insert into public.transactions (user_id, kind, amount, balance_after, reference) values (%L, 'purchase', -5, 0, 'x')$$, :ann), '23514', null, 'a purchase does not take');
select throws_ok(format($$insert into public.transactions (user_id, kind, amount, balance_after, reference) values (%L, 'present', 5, 0, 'x')$$, :ann), '23514', null, 'kinds are known');
select throws_ok(format($$insert into public.transactions (user_id, kind, amount, balance_after, reference) values (%L, 'adjust', -100000, 0, 'x')$$, :ann), '23514', null, 'a balance is never negative');
select throws_ok(format($$insert into public.transactions (user_id, kind, amount, balance_after, reference) values (%L, 'purchase', 5, 0, 'pi_' || %1$L)$$, :ann), '23505', null, 'a kind and reference come once');
select throws_ok($$insert into public.transactions (user_id, kind, amount, balance_after, job_id, reference)
  select user_id, 'refund', 5, 0, job_id, 'x' from public.transactions where kind = 'settle'$$, '23505', null, 'a reservation ends once');
select lives_ok(format($$insert into public.transactions (user_id, kind, amount, balance_after, reference) values (%L, 'adjust', 5, 77, 'y')$$, :ann), 'an entry by hand moves the balance');
select results_eq($$select t.balance_after from public.transactions t join public.profiles p on p.id = t.user_id and p.balance = t.balance_after where t.reference = 'y'$$, array[10989::bigint], 'by its amount, whatever it says');
select * from finish();
rollback;
