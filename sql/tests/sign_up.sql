\ir common.psql
select plan(9);
update public.settings set grant_on_sign_up = 50;
insert into auth.users (id, email, email_confirmed_at) values ('00000000-0000-0000-0000-00000000000d', 'dan@example.com', now());
select results_eq($$select email, balance from public.profiles where id = '00000000-0000-0000-0000-00000000000d'$$, $$values ('dan@example.com', 50::bigint)$$, 'a sign-up makes a profile with its credits');
update auth.users set email = 'daniel@example.com' where email = 'dan@example.com';
select results_eq($$select email from public.profiles where id = '00000000-0000-0000-0000-00000000000d'$$, array['daniel@example.com'], 'and its email follows');

-- Whatever is broken, people can sign up.
set local client_min_messages = error;
alter table public.settings rename to gone;
select lives_ok($$insert into auth.users (id, email, email_confirmed_at) values ('00000000-0000-0000-0000-00000000000e', 'eve@example.com', now())$$, 'a sign-up survives a missing table');
select is_empty($$select from public.profiles where id = '00000000-0000-0000-0000-00000000000e'$$, 'without a profile');
alter table public.gone rename to settings;
select is(public.get_profile('00000000-0000-0000-0000-00000000000e') ->> 'balance', '50', 'which is made when it is first asked for, with its credits');
select is(public.get_profile('00000000-0000-0000-0000-00000000000e') ->> 'balance', '50', 'once');
alter table public.profiles rename to gone;
select lives_ok($$insert into auth.users (id, email) values ('00000000-0000-0000-0000-00000000000f', 'fay@example.com')$$, 'a sign-up survives a missing table of profiles');
select lives_ok($$update auth.users set email = 'f@example.com' where email = 'fay@example.com'$$, 'and so does a new email');
alter table public.gone rename to profiles;
select throws_ok($$select public.get_profile('00000000-0000-0000-0000-0000000000ff')$$, 'PT404', null, 'nobody''s profile is made for an id that is no user''s');
select * from finish();
rollback;
