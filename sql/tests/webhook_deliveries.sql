\ir common.psql
select public.create_webhook(:ann, 'https://ann.example/hook', array['job.succeeded'], 'whsec_1') -> 'endpoint' ->> 'id' as endpoint \gset
select public.create_test_delivery(:ann, :'endpoint', 60) ->> 'id' as delivery \gset
select plan(11);
select clients_cannot_read('webhook_deliveries');
select clients_cannot_write('webhook_deliveries');
select * from finish();
rollback;
