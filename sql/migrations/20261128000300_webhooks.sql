-- Customers' webhooks: where each user wants to be told of what happened, and what is still to be delivered there. A delivery is written in the
-- transaction of what it tells of, by triggers, so that neither is there without the other. It holds no text of a user's, only ids and numbers.

alter table public.settings add column low_credits bigint default 200 check (low_credits > 0); -- users with fewer are told so; null: nobody is
alter table public.profiles add column low_since timestamptz; -- when the user was told that the credits are low

create table public.webhook_endpoints (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.profiles (id),
  url text not null check (char_length(url) between 1 and 2000),
  events text[] not null check (cardinality(events) > 0 and events <@ array['job.succeeded', 'job.failed', 'credits.low', 'voice.ready']),
  delivered_at timestamptz, -- when a delivery arrived last
  disabled_at timestamptz, -- deliveries failed for days, or it said that it is gone
  created_at timestamptz not null default now()
);
create index webhook_endpoints_of_user on public.webhook_endpoints (user_id);

-- What deliveries are signed with. For a day after a rotation the secret before it signs, too.
create table fishserve.webhook_secrets (
  endpoint_id uuid primary key references public.webhook_endpoints (id) on delete cascade,
  secret text not null,
  previous text,
  previous_until timestamptz
);

create table public.webhook_deliveries (
  id uuid primary key default gen_random_uuid(),
  endpoint_id uuid not null references public.webhook_endpoints (id) on delete cascade,
  user_id uuid not null references public.profiles (id),
  event text not null,
  payload jsonb not null,
  attempts integer not null default 0,
  next_at timestamptz not null default now(), -- of the next attempt; while one is under way, when it counts as lost
  under_way boolean not null default false,
  status integer, -- HTTP's, of the last attempt; null where there was no answer
  error text, -- why the last attempt failed
  milliseconds integer, -- that it took
  outcome text check (outcome in ('delivered', 'failed')), -- null: there is another attempt
  finished_at timestamptz,
  created_at timestamptz not null default now(),
  check ((outcome is null) = (finished_at is null))
);
create index webhook_deliveries_due on public.webhook_deliveries (endpoint_id, next_at) where outcome is null;
create index webhook_deliveries_under_way on public.webhook_deliveries (user_id) where under_way;
create index webhook_deliveries_of_endpoint on public.webhook_deliveries (endpoint_id, created_at);
create index webhook_deliveries_of_user on public.webhook_deliveries (user_id);
create index webhook_deliveries_by_age on public.webhook_deliveries (created_at);

alter table public.webhook_endpoints enable row level security;
alter table fishserve.webhook_secrets enable row level security;
alter table public.webhook_deliveries enable row level security;
revoke all on public.webhook_endpoints, public.webhook_deliveries, fishserve.webhook_secrets from public, anon, authenticated, service_role;
create policy "the service reads" on public.webhook_endpoints for select to service_role using (true);
create policy "the service reads" on public.webhook_deliveries for select to service_role using (true);
create policy "the owner alone" on fishserve.webhook_secrets for select using (false);
grant select on public.webhook_endpoints, public.webhook_deliveries to service_role;

create function fishserve.payload(p_event text, p_data jsonb) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('type', p_event, 'timestamp', to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'data', p_data)
$$;

-- Writes a delivery for each endpoint of the user that wants the event.
create function fishserve.tell(p_user_id uuid, p_event text, p_data jsonb) returns void
language sql set search_path = '' as $$
  insert into public.webhook_deliveries (endpoint_id, user_id, event, payload)
    select id, user_id, p_event, fishserve.payload(p_event, p_data) from public.webhook_endpoints
    where user_id = p_user_id and disabled_at is null and p_event = any (events)
$$;

create function fishserve.tell_of_job() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform fishserve.tell(new.user_id, case new.status when 'succeeded' then 'job.succeeded' else 'job.failed' end, jsonb_build_object('id', new.id,
    'status', new.status, 'seconds', new.seconds, 'credits', new.charged, 'partial', new.partial, 'created_at', new.created_at, 'finished_at', new.finished_at));
  return null;
end $$;
create trigger tell_of_job after update of status on public.jobs for each row
  when (old.status in ('queued', 'running') and new.status in ('succeeded', 'failed', 'expired')) execute function fishserve.tell_of_job();

create function fishserve.tell_of_voice() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform fishserve.tell(new.user_id, 'voice.ready', jsonb_build_object('id', new.id, 'seconds', new.seconds));
  return null;
end $$;
create trigger tell_of_voice after update of status on public.cloned_voices for each row
  when (old.status = 'pending' and new.status = 'ready') execute function fishserve.tell_of_voice();

create function fishserve.tell_of_low_credits(p_user_id uuid, p_credits bigint) returns void
language sql set search_path = '' as $$
  select fishserve.tell(p_user_id, 'credits.low', jsonb_build_object('credits', p_credits))
$$;

-- A user whose credits fall below the mark is told once, and again after they were above it. What is reserved still counts: most of it may come back.
create function fishserve.notice_low_credits() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_low bigint := (select low_credits from public.settings);
  v_since timestamptz := (select low_since from public.profiles where id = new.user_id);
begin
  if v_since is not null and new.balance_after >= coalesce(v_low, 0) then
    update public.profiles set low_since = null where id = new.user_id;
  elsif v_since is null and new.balance_after < v_low and new.kind in ('settle', 'chargeback', 'expire', 'adjust') and new.balance_after
    + coalesce((select sum(reserved) from public.jobs where user_id = new.user_id and (status = 'queued' or status = 'running')), 0) < v_low then
    update public.profiles set low_since = now() where id = new.user_id;
    perform fishserve.tell_of_low_credits(new.user_id, new.balance_after);
  end if;
  return null;
end $$;
create trigger notice_low_credits after insert on public.transactions for each row
  when (new.kind <> 'reserve') execute function fishserve.notice_low_credits();

-- A closed account is told nothing more.
create function fishserve.forget_webhooks() returns trigger
language plpgsql set search_path = '' as $$
begin
  delete from public.webhook_endpoints where user_id = new.id;
  return null;
end $$;
create trigger forget_webhooks after update of closed_at on public.profiles for each row
  when (new.closed_at is not null) execute function fishserve.forget_webhooks();

create function fishserve.endpoint_json(p_endpoint public.webhook_endpoints) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_endpoint) || jsonb_build_object('waiting',
    (select count(*) from public.webhook_deliveries where endpoint_id = p_endpoint.id and outcome is null))
$$;

create function fishserve.endpoint_of(p_user_id uuid, p_endpoint_id uuid) returns public.webhook_endpoints
language plpgsql set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints;
begin
  select * into v_endpoint from public.webhook_endpoints where id = p_endpoint_id and user_id = p_user_id for no key update;
  if not found then raise sqlstate 'PT404' using message = format('you have no webhook %s', p_endpoint_id); end if;
  return v_endpoint;
end $$;

create function public.create_webhook(p_user_id uuid, p_url text, p_events text[], p_secret text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints;
begin
  perform fishserve.open_profile(p_user_id);
  if coalesce(char_length(p_url), 0) not between 1 and 2000 then raise sqlstate 'PT422' using message = 'a webhook needs an address of 1 to 2000 characters'; end if;
  if coalesce(cardinality(p_events), 0) = 0 or not p_events <@ array['job.succeeded', 'job.failed', 'credits.low', 'voice.ready'] then
    raise sqlstate 'PT422' using message = 'a webhook needs events out of job.succeeded, job.failed, credits.low and voice.ready';
  end if;
  if p_secret is null then raise sqlstate 'PT422' using message = 'a webhook needs a secret'; end if;
  if (select count(*) from public.webhook_endpoints where user_id = p_user_id) >= 5 then
    raise sqlstate 'PT409' using message = 'you have 5 webhooks, the most an account may have; delete one first';
  end if;
  insert into public.webhook_endpoints (user_id, url, events) values (p_user_id, p_url, p_events) returning * into v_endpoint;
  insert into fishserve.webhook_secrets (endpoint_id, secret) values (v_endpoint.id, p_secret);
  return jsonb_build_object('endpoint', fishserve.endpoint_json(v_endpoint));
end $$;

create function public.list_webhooks(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(fishserve.endpoint_json(e) order by e.created_at), '[]') from public.webhook_endpoints e where e.user_id = p_user_id
$$;

create function public.delete_webhook(p_user_id uuid, p_endpoint_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform fishserve.endpoint_of(p_user_id, p_endpoint_id);
  delete from public.webhook_endpoints where id = p_endpoint_id;
  return jsonb_build_object('id', p_endpoint_id);
end $$;

-- {endpoint}: from now on the new secret signs, and for a day the one before it, too.
create function public.rotate_webhook_secret(p_user_id uuid, p_endpoint_id uuid, p_secret text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints := fishserve.endpoint_of(p_user_id, p_endpoint_id);
begin
  if p_secret is null then raise sqlstate 'PT422' using message = 'a webhook needs a secret'; end if;
  update fishserve.webhook_secrets set previous = secret, previous_until = now() + interval '1 day', secret = p_secret where endpoint_id = p_endpoint_id;
  return jsonb_build_object('endpoint', fishserve.endpoint_json(v_endpoint));
end $$;

-- The log of an endpoint, newest first: [delivery].
create function public.list_deliveries(p_user_id uuid, p_endpoint_id uuid, p_before timestamptz default null, p_limit integer default 50) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  if not exists (select from public.webhook_endpoints where id = p_endpoint_id and user_id = p_user_id) then
    raise sqlstate 'PT404' using message = format('you have no webhook %s', p_endpoint_id);
  end if;
  return (select coalesce(jsonb_agg(to_jsonb(d) order by d.created_at desc, d.id), '[]') from (
    select * from public.webhook_deliveries where endpoint_id = p_endpoint_id and (p_before is null or created_at < p_before)
    order by created_at desc, id limit greatest(0, least(p_limit, 200))
  ) d);
end $$;

-- A delivery with what an attempt needs: its endpoint's address, and the secrets that sign, the newest first.
create function fishserve.order_json(p_delivery public.webhook_deliveries) returns jsonb
language sql stable set search_path = '' as $$
  select to_jsonb(p_delivery) || jsonb_build_object('url', e.url, 'secrets',
    jsonb_build_array(s.secret) || case when s.previous_until > now() then jsonb_build_array(s.previous) else '[]' end)
  from public.webhook_endpoints e join fishserve.webhook_secrets s on s.endpoint_id = e.id where e.id = p_delivery.endpoint_id
$$;

-- A delivery to try an endpoint with, claimed by the caller: it is tried once, and enables an endpoint that was disabled.
create function public.create_test_delivery(p_user_id uuid, p_endpoint_id uuid, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_delivery public.webhook_deliveries;
begin
  perform fishserve.open_profile(p_user_id);
  perform fishserve.endpoint_of(p_user_id, p_endpoint_id);
  insert into public.webhook_deliveries (endpoint_id, user_id, event, payload, attempts, under_way, next_at)
    values (p_endpoint_id, p_user_id, 'webhook.test', fishserve.payload('webhook.test', '{}'), 1, true, now() + make_interval(secs => p_lease_seconds))
    returning * into v_delivery;
  return fishserve.order_json(v_delivery);
end $$;

create function fishserve.under_way(p_user_id uuid) returns integer
language sql stable set search_path = '' as $$
  select count(*)::integer from public.webhook_deliveries where user_id = p_user_id and under_way and next_at > now()
$$;

-- Deliveries that are due, each with its address and secrets, for the caller to try while its lease lasts: the endpoint that has waited longest first,
-- and at most four of a user's at once, so that endpoints that do not answer hold up nobody else. A process that dies loses its lease, and another one
-- delivers again.
create function public.claim_deliveries(p_limit integer, p_lease_seconds numeric) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_limit integer := greatest(0, least(p_limit, 1000));
  v_endpoint record;
  v_free integer;
  v_part jsonb;
  v_all jsonb := '[]'::jsonb;
begin
  for v_endpoint in
    select e.id, e.user_id from public.webhook_endpoints e where e.disabled_at is null
      and exists (select from public.webhook_deliveries d where d.endpoint_id = e.id and d.outcome is null and d.next_at <= now())
      and fishserve.under_way(e.user_id) < 4 -- others than these have their turn
    order by (select min(d.next_at) from public.webhook_deliveries d where d.endpoint_id = e.id and d.outcome is null)
    limit v_limit for no key update of e skip locked
  loop
    exit when jsonb_array_length(v_all) >= v_limit;
    v_free := least(v_limit - jsonb_array_length(v_all), 4 - fishserve.under_way(v_endpoint.user_id));
    with due as (
      select id from public.webhook_deliveries where endpoint_id = v_endpoint.id and outcome is null and next_at <= now()
      order by next_at, created_at limit greatest(0, v_free) for no key update skip locked
    ), claimed as (
      update public.webhook_deliveries d set under_way = true, attempts = attempts + 1, next_at = now() + make_interval(secs => p_lease_seconds)
      from due where d.id = due.id returning fishserve.order_json(d) as delivery
    )
    select coalesce(jsonb_agg(delivery), '[]') into v_part from claimed;
    v_all := v_all || v_part;
  end loop;
  return v_all;
end $$;

-- How long to wait after so many attempts; null: no more, after about three days.
create function fishserve.retry_pause(p_attempts integer) returns interval
language sql immutable set search_path = '' as $$
  select (array['5 seconds', '30 seconds', '2 minutes', '15 minutes', '1 hour', '3 hours', '8 hours', '16 hours', '24 hours', '24 hours']::interval[])[p_attempts]
$$;

create function fishserve.disable_endpoint(p_endpoint_id uuid) returns void
language sql set search_path = '' as $$
  update public.webhook_endpoints set disabled_at = now() where id = p_endpoint_id and disabled_at is null;
  update public.webhook_deliveries set outcome = 'failed', finished_at = now(), under_way = false, error = 'the webhook was disabled'
    where endpoint_id = p_endpoint_id and outcome is null and event <> 'webhook.test';
$$;

-- What came of an attempt: {delivery, disabled}; delivery is null where the endpoint was deleted meanwhile. Only a status of 200 to 299 is a delivery. The failure of an attempt that lost its lease is passed over:
-- a later one is under way. Where the last attempt failed, and nothing has arrived since the event, the endpoint is disabled; so is one that answers 410.
create function public.end_delivery(
  p_delivery_id uuid, p_attempt integer, p_status integer default null, p_error text default null, p_milliseconds integer default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints;
  v_delivery public.webhook_deliveries;
  v_good boolean := coalesce(p_status between 200 and 299, false);
  v_last boolean;
begin
  select e.* into v_endpoint from public.webhook_endpoints e join public.webhook_deliveries d on d.endpoint_id = e.id where d.id = p_delivery_id
    for no key update of e; -- before its deliveries, as all that locks both
  if not found then return jsonb_build_object('delivery', null, 'disabled', false); end if;
  select * into v_delivery from public.webhook_deliveries where id = p_delivery_id for no key update;
  if v_delivery.outcome is not null or not v_good and v_delivery.attempts <> p_attempt then
    return jsonb_build_object('delivery', to_jsonb(v_delivery), 'disabled', false);
  end if;
  v_last := not v_good and (v_delivery.event = 'webhook.test' or p_status = 410 or fishserve.retry_pause(v_delivery.attempts) is null);
  update public.webhook_deliveries set status = p_status, error = case when not v_good then left(p_error, 200) end, milliseconds = p_milliseconds,
    under_way = false, outcome = case when v_good then 'delivered' when v_last then 'failed' end, finished_at = case when v_good or v_last then now() end,
    next_at = case when v_good or v_last then next_at else now() + fishserve.retry_pause(attempts) * (1 + random() / 10) end
    where id = p_delivery_id returning * into v_delivery;
  if v_good then
    update public.webhook_endpoints set delivered_at = now(), disabled_at = null where id = v_endpoint.id;
  elsif v_last and v_delivery.event <> 'webhook.test' and v_endpoint.disabled_at is null
    and (p_status = 410 or coalesce(v_endpoint.delivered_at, '-infinity') < v_delivery.created_at) then
    perform fishserve.disable_endpoint(v_endpoint.id);
    return jsonb_build_object('delivery', to_jsonb(v_delivery), 'disabled', true);
  end if;
  return jsonb_build_object('delivery', to_jsonb(v_delivery), 'disabled', false);
end $$;

-- The log is kept for 30 days: {expired}, at most 1000.
create function public.expire_deliveries() returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.webhook_deliveries where created_at < now() - interval '30 days' order by created_at limit 1000 for update skip locked
  ), gone as (
    delete from public.webhook_deliveries d using due where d.id = due.id returning 1
  )
  select jsonb_build_object('expired', count(*)) from gone
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.create_webhook, public.list_webhooks, public.delete_webhook, public.rotate_webhook_secret, public.list_deliveries,
  public.create_test_delivery, public.claim_deliveries, public.end_delivery, public.expire_deliveries from public, anon, authenticated;
grant execute on function public.create_webhook, public.list_webhooks, public.delete_webhook, public.rotate_webhook_secret, public.list_deliveries,
  public.create_test_delivery, public.claim_deliveries, public.end_delivery, public.expire_deliveries to service_role;

insert into fishserve.migrations (name) values ('20261128000300_webhooks');
