-- Payments in money: what was paid, and each refund and each dispute by itself, so that part of the money takes part of the credits.

alter table public.payments
  add column amount_cents bigint check (amount_cents > 0), -- what was paid, in the currency's smallest unit
  add column currency text check (currency ~ '^[a-z]{3}$'),
  add column pack text,
  add column stated_cents bigint not null default 0 check (stated_cents >= 0); -- the largest sum of refunds that Stripe has stated

-- A refund or a dispute of a payment, by Stripe's id (re_..., dp_...). `undone`: the refund failed, the dispute was won; that is final.
create table public.payment_returns (
  id text primary key,
  reference text not null references public.payments (reference),
  kind text not null check (kind in ('refund', 'dispute')),
  cents bigint not null check (cents >= 0),
  undone boolean not null default false,
  created_at timestamptz not null default now()
);
create index payment_returns_of_payment on public.payment_returns (reference);
alter table public.payment_returns enable row level security;
revoke all on public.payment_returns from anon, authenticated, service_role;
create policy "the service reads" on public.payment_returns for select to service_role using (true);
grant select on public.payment_returns to service_role;

-- What was known as shares. A payment whose pack is no longer for sale counts a credit as a cent.
update public.payments p set
  amount_cents = coalesce((select min(k.amount_cents) from public.packs k where k.credits = p.credits), p.credits),
  currency = (select min(k.currency) from public.packs k where k.credits = p.credits)
  where p.credits is not null;
update public.payments set stated_cents = round(refunded * amount_cents) where credits is not null;
insert into public.payment_returns (id, reference, kind, cents, undone)
  select 'before ' || reference, reference, 'dispute', round(disputed * amount_cents), reinstated from public.payments where credits is not null and disputed > 0;
alter table public.payments drop column refunded, drop column disputed, drop column reinstated;
alter table public.payments add constraint payments_bought check ((credits is null) = (amount_cents is null));

-- The credits that are to be taken back of a payment: as large a part as went back of the money.
create function fishserve.credits_owed(p_payment public.payments) returns bigint
language sql stable set search_path = '' as $$
  select ceil(p_payment.credits * least(p_payment.amount_cents,
      -- Stripe states a sum, and tells of each refund; either may be late, and a refund that failed may be in the sum.
      greatest(coalesce(sum(cents) filter (where kind = 'refund' and not undone), 0),
        p_payment.stated_cents - coalesce(sum(cents) filter (where kind = 'refund' and undone), 0))
      + coalesce(sum(cents) filter (where kind = 'dispute' and not undone), 0)
    ) / p_payment.amount_cents)::bigint
  from public.payment_returns where reference = p_payment.reference
$$;

-- kind: purchase (user_id, credits, cents, currency, pack); refund and refund_failed (object: the refund's id; or, without it, cents: all that was
-- refunded up to now); dispute and reinstate (object: the dispute's id); null for an event that moves no credits and is to be remembered only.
-- cents null: all of the payment; for a purchase, a cent a credit. {applied, balance, closed}: balance is null where no purchase is known yet, and
-- closed is true where the account that it belongs to was closed.
drop function public.apply_stripe_event;
create function public.apply_stripe_event(
  p_event_id text, p_type text, p_user_id uuid default null, p_credits bigint default null, p_reference text default null, p_kind text default null,
  p_receipt_url text default null, p_customer text default null, p_cents bigint default null, p_currency text default null, p_pack text default null,
  p_object text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_payment public.payments;
  v_cents bigint := coalesce(p_cents, 1000000000000);
  v_owed bigint;
  v_take bigint;
  v_profile public.profiles;
begin
  if p_kind not in ('purchase', 'refund', 'refund_failed', 'dispute', 'reinstate') then
    raise sqlstate 'PT422' using message = format('an event is a purchase, refund, refund_failed, dispute or reinstate, not a %s', p_kind);
  end if;
  if p_kind is not null and p_reference is null then raise sqlstate 'PT422' using message = format('a %s needs the payment it is of', p_kind); end if;
  if p_kind = 'purchase' and (p_user_id is null or p_credits is null or p_credits <= 0) then
    raise sqlstate 'PT422' using message = format('a purchase needs a user and credits, not %s', coalesce(p_credits::text, 'none'));
  end if;
  if p_cents < 0 or p_kind = 'purchase' and p_cents = 0 then raise sqlstate 'PT422' using message = format('%s cents are no amount of money', p_cents); end if;
  if p_kind = 'refund_failed' and p_object is null then raise sqlstate 'PT422' using message = 'a refund that failed needs its id'; end if;

  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found or p_kind is null then
    select p.* into v_profile from public.profiles p
      where p.id = coalesce((select user_id from public.payments where reference = p_reference), p_user_id);
    return jsonb_build_object('applied', false, 'balance', v_profile.balance, 'closed', v_profile.closed_at is not null);
  end if;

  -- Events of one payment queue here; then the profile is locked, as always before credits move.
  insert into public.payments (reference) values (p_reference) on conflict do nothing;
  select * into v_payment from public.payments where reference = p_reference for update;
  if p_kind = 'purchase' and v_payment.user_id is null then
    perform fishserve.lock_profile(p_user_id);
    perform fishserve.post(p_user_id, 'purchase', p_credits, null, p_reference);
    update public.profiles set stripe_customer = coalesce(p_customer, stripe_customer) where id = p_user_id and closed_at is null;
    update public.payments set user_id = p_user_id, credits = p_credits, amount_cents = coalesce(p_cents, p_credits), currency = p_currency, pack = p_pack
      where reference = p_reference;
  elsif p_kind = 'refund' and p_object is null then
    update public.payments set stated_cents = greatest(stated_cents, v_cents) where reference = p_reference;
  elsif p_kind <> 'purchase' then
    if p_kind in ('dispute', 'reinstate') then -- the one that was known before disputes had ids
      update public.payment_returns set id = coalesce(p_object, 'dispute of ' || p_reference) where id = 'before ' || p_reference;
    end if;
    insert into public.payment_returns as r (id, reference, kind, cents, undone) values (
      coalesce(p_object, 'dispute of ' || p_reference), p_reference, case when p_kind in ('refund', 'refund_failed') then 'refund' else 'dispute' end,
      v_cents, p_kind in ('refund_failed', 'reinstate'))
      on conflict (id) do update set undone = r.undone or excluded.undone, cents = greatest(r.cents, excluded.cents);
  end if;
  update public.payments set receipt_url = coalesce(p_receipt_url, receipt_url) where reference = p_reference returning * into v_payment;
  if v_payment.user_id is null then return jsonb_build_object('applied', true, 'balance', null, 'closed', false); end if;

  v_profile := fishserve.lock_profile(v_payment.user_id);
  v_owed := fishserve.credits_owed(v_payment);
  v_take := v_owed - v_payment.taken;
  if v_take > 0 then
    update public.profiles set debt = debt + v_take - least(v_take, v_profile.balance) where id = v_profile.id;
    perform fishserve.post(v_profile.id, 'chargeback', -least(v_take, v_profile.balance), null, p_event_id);
  elsif v_take < 0 then
    perform fishserve.post(v_profile.id, 'adjust', -v_take, null, p_event_id);
  end if;
  update public.payments set taken = v_owed where reference = p_reference;
  return jsonb_build_object('applied', true, 'balance', fishserve.balance_of(v_profile.id), 'closed', v_profile.closed_at is not null);
end $$;

-- Who may buy: {customer}, Stripe's, null before the first purchase. A closed or suspended account may not.
create function public.buyer(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.open_profile(p_user_id);
begin
  return jsonb_build_object('customer', v_profile.stripe_customer);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.apply_stripe_event, public.buyer from public, anon, authenticated;
grant execute on function public.apply_stripe_event, public.buyer to service_role;

insert into fishserve.migrations (name) values ('20261126000500_money');
