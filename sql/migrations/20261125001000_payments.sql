-- Stripe's events, applied once each and in any order of arrival. A payment is remembered by what is known of it so far (bought, share refunded,
-- disputed, dispute won); after every event the credits taken back are brought to what that state says, so the order cannot matter.

create table public.stripe_events (
  id text primary key,
  type text not null,
  created_at timestamptz not null default now()
);

create table public.payments (
  reference text primary key, -- Stripe's payment intent
  user_id uuid references public.profiles (id), -- null until the purchase has come
  credits bigint check (credits > 0),
  refunded numeric not null default 0 check (refunded between 0 and 1), -- share of the money
  disputed numeric not null default 0 check (disputed between 0 and 1),
  reinstated boolean not null default false, -- the dispute was won, which is final
  taken bigint not null default 0, -- credits taken back so far, as debt too
  receipt_url text,
  created_at timestamptz not null default now(),
  check ((user_id is null) = (credits is null))
);
create index payments_of_user on public.payments (user_id);

alter table public.stripe_events enable row level security;
alter table public.payments enable row level security;
revoke all on public.stripe_events, public.payments from anon, authenticated, service_role;
create policy "the service reads" on public.stripe_events for select to service_role using (true);
create policy "owners read" on public.payments for select to authenticated using ((select auth.uid()) = user_id);
grant select on public.payments to authenticated;
grant select on public.stripe_events, public.payments to service_role;

-- kind: purchase (user_id, credits), refund or dispute (share: how much of the money, in all, up to now), reinstate (a dispute that was won),
-- or null for an event that moves no credits and is to be remembered only. {applied, balance}; balance is null where no purchase is known yet.
create function public.apply_stripe_event(
  p_event_id text, p_type text, p_user_id uuid default null, p_credits bigint default null, p_reference text default null, p_kind text default null,
  p_receipt_url text default null, p_share numeric default 1, p_customer text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_payment public.payments;
  v_owed bigint;
  v_take bigint;
  v_profile public.profiles;
begin
  if p_kind not in ('purchase', 'refund', 'dispute', 'reinstate') then
    raise sqlstate 'PT422' using message = format('an event is a purchase, refund, dispute or reinstate, not a %s', p_kind);
  end if;
  if p_kind is not null and p_reference is null then raise sqlstate 'PT422' using message = format('a %s needs the payment it is of', p_kind); end if;
  if p_kind = 'purchase' and (p_user_id is null or p_credits is null or p_credits <= 0) then
    raise sqlstate 'PT422' using message = format('a purchase needs a user and credits, not %s', coalesce(p_credits::text, 'none'));
  end if;
  if p_share is null or not p_share between 0 and 1 then raise sqlstate 'PT422' using message = format('a share is 0 to 1, not %s', p_share); end if;

  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found or p_kind is null then
    select p.* into v_profile from public.profiles p
      where p.id = coalesce((select user_id from public.payments where reference = p_reference), p_user_id);
    return jsonb_build_object('applied', false, 'balance', v_profile.balance);
  end if;

  -- Events of one payment queue here; then the profile is locked, as always before credits move.
  insert into public.payments (reference) values (p_reference) on conflict do nothing;
  select * into v_payment from public.payments where reference = p_reference for update;
  if p_kind = 'purchase' and v_payment.user_id is null then
    perform fishserve.lock_profile(p_user_id);
    perform fishserve.post(p_user_id, 'purchase', p_credits, null, p_reference);
    update public.profiles set stripe_customer = coalesce(p_customer, stripe_customer) where id = p_user_id and closed_at is null;
    update public.payments set user_id = p_user_id, credits = p_credits where reference = p_reference;
  end if;
  update public.payments set
    refunded = case p_kind when 'refund' then greatest(refunded, p_share) else refunded end,
    disputed = case p_kind when 'dispute' then greatest(disputed, p_share) else disputed end,
    reinstated = reinstated or p_kind = 'reinstate',
    receipt_url = coalesce(p_receipt_url, receipt_url)
    where reference = p_reference returning * into v_payment;
  if v_payment.user_id is null then return jsonb_build_object('applied', true, 'balance', null); end if;

  v_profile := fishserve.lock_profile(v_payment.user_id);
  v_owed := ceil(v_payment.credits * least(1, v_payment.refunded + case when v_payment.reinstated then 0 else v_payment.disputed end));
  v_take := v_owed - v_payment.taken;
  if v_take > 0 then
    update public.profiles set debt = debt + v_take - least(v_take, v_profile.balance) where id = v_profile.id;
    perform fishserve.post(v_profile.id, 'chargeback', -least(v_take, v_profile.balance), null, p_event_id);
  elsif v_take < 0 then
    perform fishserve.post(v_profile.id, 'adjust', -v_take, null, p_event_id);
  end if;
  update public.payments set taken = v_owed where reference = p_reference;
  return jsonb_build_object('applied', true, 'balance', fishserve.balance_of(v_profile.id));
end $$;

-- Entries of the ledger, newest first, a purchase with its receipt; `before` is the id of the last one seen.
create function public.ledger(p_user_id uuid, p_before bigint default null, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('receipt_url', p.receipt_url) order by t.id desc), '[]') from (
    select * from public.transactions where user_id = p_user_id and (p_before is null or id < p_before)
    order by id desc limit greatest(0, least(coalesce(p_limit, 50), 200))
  ) t left join public.payments p on t.kind = 'purchase' and p.reference = t.reference
$$;

revoke execute on function public.apply_stripe_event, public.ledger from public, anon, authenticated;
grant execute on function public.apply_stripe_event, public.ledger to service_role;

insert into fishserve.migrations (name) values ('20261125001000_payments');
