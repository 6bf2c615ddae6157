\ir common.psql
select public.create_webhook(:ann, 'https://ann.example/hook', array['job.succeeded'], 'whsec_1') -> 'endpoint' ->> 'id' as endpoint \gset
select public.create_test_delivery(:ann, :'endpoint', 60) ->> 'id' as delivery \gset
select plan(12);
select clients_cannot_read('webhook_endpoints');
select clients_cannot_write('webhook_endpoints');
select ok(not has_table_privilege('service_role', 'fishserve.webhook_secrets', 'select'), 'the service cannot read secrets but by a delivery');
select * from finish();
rollback;
