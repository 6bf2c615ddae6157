\ir common.psql
do $$ begin
  perform public.accept_documents('00000000-0000-0000-0000-00000000000a', '{"terms": "1", "privacy": "1"}');
  perform public.accept_documents('00000000-0000-0000-0000-00000000000b', '{"terms": "1"}');
end $$;
select plan(16);
select owners_read_their_own('acceptances');
select clients_cannot_write('acceptances');
select throws_ok('update public.acceptances set version = ''2''', 'P0001', null, 'nobody changes what was accepted');
select throws_ok('delete from public.acceptances', 'P0001', null, 'nobody deletes it');
select throws_ok('truncate public.acceptances', 'P0001', null, 'nor all of it');
select is(jsonb_array_length(public.accept_documents(:ann, '{"terms": "1"}')), 2, 'a version is accepted once');
select is(jsonb_array_length(public.accept_documents(:ann, '{"terms": "2"}')), 3, 'and the next one, too');
select * from finish();
rollback;
