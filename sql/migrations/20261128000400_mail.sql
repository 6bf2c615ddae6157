-- Mail to users and to the operator: what is to be sent is written here in the transaction of what it tells of, and a row goes when its message was sent
-- or given up. A mail server that does not answer loses and blocks nothing.

create table public.mails (
  id bigint generated always as identity primary key,
  user_id uuid references public.profiles (id),
  address text, -- null: the operator's, which the API knows
  kind text not null check (kind in ('credits_low', 'receipt', 'key_created', 'webhook_disabled', 'account_closed', 'dispute')),
  data jsonb not null default '{}',
  attempts integer not null default 0,
  next_at timestamptz not null default now(), -- of the next attempt; while one is under way, when it counts as lost
  created_at timestamptz not null default now()
);
create index mails_due on public.mails (next_at);
create index mails_of_user on public.mails (user_id);
create index mails_by_age on public.mails (created_at);
alter table public.mails enable row level security;
revoke all on public.mails from anon, authenticated, service_role;
create policy "the service reads" on public.mails for select to service_role using (true);
grant select on public.mails to service_role;

create function fishserve.mail(p_user_id uuid, p_kind text, p_data jsonb default '{}') returns void
language sql set search_path = '' as $$
  insert into public.mails (user_id, address, kind, data)
    select id, email, p_kind, p_data from public.profiles where id = p_user_id and closed_at is null and email is not null
$$;

create or replace function fishserve.tell_of_low_credits(p_user_id uuid, p_credits bigint) returns void
language sql set search_path = '' as $$
  select fishserve.tell(p_user_id, 'credits.low', jsonb_build_object('credits', p_credits));
  select fishserve.mail(p_user_id, 'credits_low', jsonb_build_object('credits', p_credits));
$$;

create function fishserve.mail_receipt() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform fishserve.mail(new.user_id, 'receipt', jsonb_build_object('reference', new.reference)); -- what else it says may be told a little later
  return null;
end $$;
create trigger mail_receipt after update of user_id on public.payments for each row
  when (old.user_id is null and new.user_id is not null) execute function fishserve.mail_receipt();

create function fishserve.mail_new_key() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform fishserve.mail(new.user_id, 'key_created', jsonb_build_object('name', new.name, 'prefix', new.prefix));
  return null;
end $$;
create trigger mail_new_key after insert on public.api_keys for each row execute function fishserve.mail_new_key();

create function fishserve.mail_dispute() returns trigger
language plpgsql set search_path = '' as $$
begin
  insert into public.mails (kind, data) values ('dispute', jsonb_build_object('reference', new.reference, 'dispute', new.id, 'cents', new.cents));
  return null;
end $$;
create trigger mail_dispute after insert on public.payment_returns for each row
  when (new.kind = 'dispute' and not new.undone) execute function fishserve.mail_dispute();

-- A closed account gets this one message, and nothing that still waits.
create function fishserve.mail_closing() returns trigger
language plpgsql set search_path = '' as $$
begin
  delete from public.mails where user_id = new.id;
  if old.email is not null then insert into public.mails (user_id, address, kind) values (new.id, old.email, 'account_closed'); end if;
  return null;
end $$;
create trigger mail_closing after update of closed_at on public.profiles for each row
  when (old.closed_at is null and new.closed_at is not null) execute function fishserve.mail_closing();

create or replace function fishserve.disable_endpoint(p_endpoint_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  v_endpoint public.webhook_endpoints;
begin
  update public.webhook_endpoints set disabled_at = now() where id = p_endpoint_id and disabled_at is null returning * into v_endpoint;
  if found then perform fishserve.mail(v_endpoint.user_id, 'webhook_disabled', jsonb_build_object('url', v_endpoint.url)); end if;
  update public.webhook_deliveries set outcome = 'failed', finished_at = now(), under_way = false, error = 'the webhook was disabled'
    where endpoint_id = p_endpoint_id and outcome is null and event <> 'webhook.test';
end $$;

-- What a message says, as it is known now: of a payment, what was bought and for how much.
create function fishserve.mail_json(p_mail public.mails) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('id', p_mail.id, 'address', p_mail.address, 'kind', p_mail.kind, 'attempts', p_mail.attempts, 'created_at', p_mail.created_at,
    'data', p_mail.data || coalesce((
      select jsonb_build_object('user_id', p.user_id, 'credits', p.credits, 'currency', p.currency, 'url', coalesce(i.url, p.receipt_url))
        || case p_mail.kind when 'receipt' then jsonb_build_object('cents', p.amount_cents) else jsonb_build_object('cents',
          least((p_mail.data ->> 'cents')::bigint, coalesce(p.amount_cents, (p_mail.data ->> 'cents')::bigint))) end
      from public.payments p left join public.invoices i on i.id = p.invoice where p.reference = p_mail.data ->> 'reference'), '{}'))
$$;

-- Messages that are due, for the caller to send while its lease lasts: [{id, address, kind, data, attempts, created_at}].
create function public.claim_mails(p_limit integer, p_lease_seconds numeric) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.mails where next_at <= now() order by next_at, id limit greatest(0, least(p_limit, 100)) for no key update skip locked
  ), claimed as (
    update public.mails m set attempts = attempts + 1, next_at = now() + make_interval(secs => p_lease_seconds) from due where m.id = due.id
    returning m.id, fishserve.mail_json(m) as mail
  )
  select coalesce(jsonb_agg(mail order by id), '[]') from claimed
$$;

-- What came of an attempt: {left}, whether there is another. `error` null: it was sent. `final`: no attempt can help.
create function public.end_mail(p_mail_id bigint, p_attempt integer, p_error text default null, p_final boolean default false) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  if p_error is null then
    delete from public.mails where id = p_mail_id;
  else
    delete from public.mails where id = p_mail_id and attempts = p_attempt and (p_final or fishserve.retry_pause(attempts) is null);
    update public.mails set next_at = now() + fishserve.retry_pause(attempts) where id = p_mail_id and attempts = p_attempt;
  end if;
  return jsonb_build_object('left', exists (select from public.mails where id = p_mail_id));
end $$;

-- Messages that nobody has sent for four days: {expired}. Where no mail is set up, nobody ever does.
create function public.expire_mails() returns jsonb
language sql security definer set search_path = '' as $$
  with gone as (delete from public.mails where created_at < now() - interval '4 days' returning 1)
  select jsonb_build_object('expired', count(*)) from gone
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.claim_mails, public.end_mail, public.expire_mails from public, anon, authenticated;
grant execute on function public.claim_mails, public.end_mail, public.expire_mails to service_role;

insert into fishserve.migrations (name) values ('20261128000400_mail');
