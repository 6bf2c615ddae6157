\ir common.psql
select plan(21);
select owners_read_their_own('profiles', 'id');

-- Writing: the display name, of one's own row, and nothing else.
select become('anon');
select throws_ok('insert into public.profiles (id) values (gen_random_uuid())', '42501', null, 'anon cannot insert');
select throws_ok($$update public.profiles set display_name = 'x'$$, '42501', null, 'anon cannot update');
select throws_ok('delete from public.profiles', '42501', null, 'anon cannot delete');
select become('authenticated', :ann);
select throws_ok('insert into public.profiles (id) values (gen_random_uuid())', '42501', null, 'Ann cannot insert');
select throws_ok('delete from public.profiles', '42501', null, 'Ann cannot delete');
select throws_ok('update public.profiles set balance = 1000000', '42501', null, 'Ann cannot give herself credits');
select throws_ok('update public.profiles set debt = 0', '42501', null, 'Ann cannot forgive her debt');
select throws_ok($$update public.profiles set plan = 'pro'$$, '42501', null, 'Ann cannot take a plan');
select throws_ok('update public.profiles set id = id', '42501', null, 'Ann cannot become another');
select throws_ok('update public.profiles set closed_at = null', '42501', null, 'Ann cannot reopen an account');
select throws_ok('select stripe_customer from public.profiles', '42501', null, 'Ann cannot read what is Stripe''s');
select throws_ok('select * from public.profiles', '42501', null, 'nor all columns at once');
select lives_ok($$update public.profiles set display_name = 'Ann'$$, 'Ann may change her name');
select throws_ok(format($$update public.profiles set display_name = '%s'$$, repeat('x', 81)), '23514', null, 'to one of 80 characters at most');
select become('postgres');
select results_eq('select email from public.profiles where display_name = ''Ann''', array['ann@example.com'], 'and nobody else''s changed');

select throws_ok('update public.profiles set balance = balance + 1', 'P0001', null, 'not even the owner of the table sets a balance');
select throws_ok('insert into public.profiles (id, balance) values (gen_random_uuid(), 5)', 'P0001', null, 'nor makes a profile with one');
select * from finish();
rollback;
