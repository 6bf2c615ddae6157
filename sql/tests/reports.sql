\ir common.psql
do $$ begin
  perform public.report_misuse('voice', 'https://example.com', 'That is my voice.', 'me@example.com', '00000000-0000-0000-0000-00000000000a');
end $$;
select plan(11);
select clients_cannot_read('reports');
select clients_cannot_write('reports');
select * from finish();
rollback;
