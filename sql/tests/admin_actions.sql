\ir common.psql
select plan(15);
do $$ begin
  perform public.admin_grant('kim', 'goodwill', '00000000-0000-0000-0000-00000000000a', 5, 'ticket 1');
end $$;
select clients_cannot_read('admin_actions');
select clients_cannot_write('admin_actions');
select throws_ok('update public.admin_actions set reason = ''none''', 'P0001', null, 'nobody changes an act');
select throws_ok('delete from public.admin_actions', 'P0001', null, 'nobody deletes an act');
select throws_ok('truncate public.admin_actions', 'P0001', null, 'nobody empties the acts');
select is(fishserve.has_outcome(a), false, 'an act that is no refund has no outcome') from public.admin_actions a;
select * from finish();
rollback;
