\ir common.psql
do $$ begin
  perform public.create_voice('00000000-0000-0000-0000-00000000000a', 'Two', '', 'audio/wav', 1000, '2026-11');
  perform public.create_voice('00000000-0000-0000-0000-00000000000b', 'Two', '', 'audio/wav', 1000, '2026-11');
end $$;
select plan(14);
select owners_read_their_own('voice_consents');
select clients_cannot_write('voice_consents');
select throws_ok('update public.voice_consents set version = ''2''', 'P0001', null, 'nobody changes a consent');
select throws_ok('delete from public.voice_consents', 'P0001', null, 'nobody deletes one');
select throws_ok('truncate public.voice_consents', 'P0001', null, 'nor all of them');
select * from finish();
rollback;
