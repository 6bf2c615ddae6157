\ir common.psql
do $$ begin
  perform public.admin_block_voice('kim', 'report 1', repeat('c', 64));
end $$;
select plan(11);
select clients_cannot_read('blocked_voices');
select clients_cannot_write('blocked_voices');
select * from finish();
rollback;
