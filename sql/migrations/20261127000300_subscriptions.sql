-- Subscriptions and their invoices, as Stripe tells of them in any order and more than once. A subscription says which plan its user has; an invoice that
-- is paid brings the credits of its lines, once. What is kept of both is a state, so that the order of events cannot matter.

create table public.subscriptions (
  id text primary key, -- Stripe's: sub_...
  user_id uuid not null references public.profiles (id),
  plan text not null references public.plans (id),
  status text not null, -- Stripe's: active, trialing, past_due, incomplete, unpaid, paused, canceled, incomplete_expired
  period_end timestamptz, -- when it is renewed
  ends_at timestamptz, -- when it ends, as its user wishes; null: it goes on
  told_at timestamptz not null, -- when what is known of it was so; infinity: it is over
  created_at timestamptz not null default now()
);
create index subscriptions_of_user on public.subscriptions (user_id);
create index subscriptions_of_plan on public.subscriptions (plan);

create table public.invoices (
  id text primary key, -- Stripe's: in_...
  user_id uuid references public.profiles (id), -- null until it is told that it was paid
  subscription text,
  plan text references public.plans (id),
  credits bigint, -- that it brought; less than 0: that it took, since the plan was changed to a smaller one
  amount_cents bigint check (amount_cents >= 0), -- what was paid
  currency text check (currency ~ '^[a-z]{3}$'),
  payment text, -- Stripe's payment intent; null until it is told
  url text, -- where its user reads it
  created_at timestamptz not null default now(),
  check ((user_id is null) = (credits is null))
);
create index invoices_of_user on public.invoices (user_id);
create index invoices_of_plan on public.invoices (plan);
alter table public.payments add column invoice text references public.invoices (id); -- that it paid; its credits are that invoice's
create index payments_of_invoice on public.payments (invoice);

alter table public.subscriptions enable row level security;
alter table public.invoices enable row level security;
revoke all on public.subscriptions, public.invoices from anon, authenticated, service_role;
create policy "owners read" on public.subscriptions for select to authenticated using ((select auth.uid()) = user_id);
create policy "owners read" on public.invoices for select to authenticated using ((select auth.uid()) = user_id);
create policy "the service reads" on public.subscriptions for select to service_role using (true);
create policy "the service reads" on public.invoices for select to service_role using (true);
grant select on public.subscriptions, public.invoices to authenticated, service_role;

-- {plan, customer, subscriptions, expiring}: the plan with its limits, Stripe's customer, the subscriptions that are not over, the one in force first,
-- and the credits that end, the soonest first.
create function public.get_plan(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles;
begin
  select * into v_profile from public.profiles where id = p_user_id;
  if not found then v_profile := fishserve.lock_profile(p_user_id); end if;
  if v_profile.closed_at is not null then raise sqlstate 'PT403' using message = 'this account was closed'; end if;
  return jsonb_build_object('plan', to_jsonb(fishserve.plan_of(p_user_id)), 'customer', v_profile.stripe_customer,
    'subscriptions', (select coalesce(jsonb_agg(to_jsonb(s) - 'user_id' - 'told_at' order by s.plan <> v_profile.plan, s.created_at desc), '[]')
      from public.subscriptions s where s.user_id = p_user_id and s.told_at <> 'infinity' and s.status <> 'incomplete'),
    'expiring', (select coalesce(jsonb_agg(jsonb_build_object('credits', l.credits, 'expires_at', l.expires_at) order by l.expires_at), '[]') from (
      select expires_at, sum(remaining) as credits from public.credit_lots where user_id = p_user_id and remaining > 0 and expires_at > now() group by expires_at
    ) l));
end $$;

-- What is told of a subscription: {applied, closed}. `told_at` is Stripe's second; of events of one second, one that begins a subscription is the first,
-- and one that ends it the last, whenever it is told.
create function public.apply_subscription_event(
  p_event_id text, p_type text, p_subscription text, p_user_id uuid, p_price text, p_status text, p_told_at timestamptz,
  p_period_end timestamptz default null, p_ends_at timestamptz default null, p_customer text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles;
  v_plan text;
  v_told timestamptz := case when p_status in ('canceled', 'incomplete_expired') then 'infinity'
    when p_status = 'incomplete' or p_type = 'customer.subscription.created' then p_told_at else p_told_at + interval '1 millisecond' end;
begin
  if p_subscription is null or p_status is null or v_told is null then
    raise sqlstate 'PT422' using message = 'a subscription has an id, a status, and a moment at which it was so';
  end if;
  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found then return jsonb_build_object('applied', false, 'closed', false); end if;
  v_profile := fishserve.lock_profile(p_user_id);
  select id into v_plan from public.plans where stripe_price = p_price;
  if not found then raise sqlstate 'PT422' using message = format('no plan has the price %s', coalesce(p_price, 'null')); end if;
  insert into public.subscriptions as s (id, user_id, plan, status, period_end, ends_at, told_at)
    values (p_subscription, p_user_id, v_plan, p_status, p_period_end, p_ends_at, v_told)
    on conflict (id) do update set plan = excluded.plan, status = excluded.status, period_end = excluded.period_end, ends_at = excluded.ends_at,
      told_at = excluded.told_at where excluded.told_at >= s.told_at and s.user_id = excluded.user_id;
  update public.profiles set
    stripe_customer = case when closed_at is null then coalesce(p_customer, stripe_customer) end,
    plan = coalesce((select s.plan from public.subscriptions s join public.plans p on p.id = s.plan
      where s.user_id = p_user_id and s.status in ('active', 'trialing', 'past_due') order by p.amount_cents desc, s.id limit 1), 'free')
    where id = p_user_id;
  return jsonb_build_object('applied', true, 'closed', v_profile.closed_at is not null);
end $$;

-- Takes credits of a locked profile; what had been spent becomes debt.
create function fishserve.take(p_profile public.profiles, p_kind text, p_credits bigint, p_reference text, p_lot text default null) returns void
language plpgsql set search_path = '' as $$
begin
  update public.profiles set debt = debt + p_credits - least(p_credits, p_profile.balance) where id = p_profile.id;
  perform fishserve.post(p_profile.id, p_kind, -least(p_credits, p_profile.balance), null, p_reference, p_lot);
end $$;

-- After an event: brings the credits taken back of a locked payment to what its refunds and disputes say. {applied, balance, closed}.
create function fishserve.take_back(p_reference text, p_event_id text) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_payment public.payments;
  v_profile public.profiles;
  v_owed bigint;
  v_take bigint;
begin
  select * into v_payment from public.payments where reference = p_reference;
  if v_payment.user_id is null then return jsonb_build_object('applied', true, 'balance', null, 'closed', false); end if;
  v_profile := fishserve.lock_profile(v_payment.user_id);
  v_owed := fishserve.credits_owed(v_payment);
  v_take := v_owed - v_payment.taken;
  if v_take > 0 then
    perform fishserve.take(v_profile, 'chargeback', v_take, p_event_id, coalesce(v_payment.invoice, p_reference));
  elsif v_take < 0 then
    perform fishserve.post(v_profile.id, 'adjust', -v_take, null, p_event_id, coalesce(v_payment.invoice, p_reference));
  end if;
  update public.payments set taken = v_owed where reference = p_reference;
  return jsonb_build_object('applied', true, 'balance', fishserve.balance_of(v_profile.id), 'closed', v_profile.closed_at is not null);
end $$;

-- What is told of an invoice, {applied, balance, closed}: that it was paid (user_id, subscription, lines, cents, ...), or by which payment (payment), or both.
-- `lines`: {data: [{price, amount, ends_at}]}, as Stripe prorates them: a line brings the credits of its price's plan as far as it charges for that plan, and a line
-- that gives money back for a plan takes them. The credits end when the period does, after the days of grace of the plan.
create function public.apply_invoice_event(
  p_event_id text, p_type text, p_invoice text, p_payment text default null, p_user_id uuid default null, p_subscription text default null,
  p_lines jsonb default null, p_cents bigint default null, p_currency text default null, p_customer text default null, p_url text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_invoice public.invoices;
  v_profile public.profiles;
  v_plan public.plans;
  v_lines jsonb := case jsonb_typeof(p_lines) when 'string' then (p_lines #>> '{}')::jsonb else p_lines end -> 'data'; -- @supabase/lite sends its text
  v_credits bigint;
  v_ends_at timestamptz;
  v_first boolean; -- it is told for the first time that it was paid
  v_paid boolean; -- by a payment that is known
begin
  if p_invoice is null then raise sqlstate 'PT422' using message = 'an invoice has an id'; end if;
  if p_cents < 0 then raise sqlstate 'PT422' using message = format('%s cents are no amount of money', p_cents); end if;
  insert into public.stripe_events (id, type) values (p_event_id, p_type) on conflict do nothing;
  if not found then
    select p.* into v_profile from public.profiles p where p.id = coalesce((select user_id from public.invoices where id = p_invoice), p_user_id);
    return jsonb_build_object('applied', false, 'balance', v_profile.balance, 'closed', v_profile.closed_at is not null);
  end if;

  -- Events of one invoice queue here; then come its payment and its user's profile, as always before credits move.
  insert into public.invoices (id) values (p_invoice) on conflict do nothing;
  select * into v_invoice from public.invoices where id = p_invoice for update;
  update public.invoices set payment = coalesce(payment, p_payment) where id = p_invoice returning * into v_invoice;
  v_first := p_user_id is not null and v_invoice.user_id is null;
  if v_first then
    select floor(sum(p.credits * l.amount / p.amount_cents)), max(l.ends_at) into v_credits, v_ends_at
      from jsonb_to_recordset(v_lines) as l (price text, amount numeric, ends_at timestamptz) join public.plans p on p.stripe_price = l.price;
    if v_credits is null then raise sqlstate 'PT422' using message = format('no plan has a price of the invoice %s', p_invoice); end if;
    select p.* into v_plan from jsonb_to_recordset(v_lines) as l (price text, amount numeric, ends_at timestamptz)
      join public.plans p on p.stripe_price = l.price order by l.ends_at desc nulls last, l.amount desc limit 1;
    update public.invoices set user_id = p_user_id, subscription = p_subscription, plan = v_plan.id, credits = v_credits,
      amount_cents = coalesce(p_cents, 0), currency = p_currency, url = p_url where id = p_invoice returning * into v_invoice;
  end if;
  if v_invoice.user_id is null then return jsonb_build_object('applied', true, 'balance', null, 'closed', false); end if;
  v_paid := v_invoice.payment is not null and v_invoice.credits > 0 and v_invoice.amount_cents > 0;
  if v_paid then
    insert into public.payments (reference) values (v_invoice.payment) on conflict do nothing;
    perform from public.payments where reference = v_invoice.payment for update;
  end if;
  v_profile := fishserve.lock_profile(v_invoice.user_id);
  if v_first then
    update public.profiles set stripe_customer = coalesce(p_customer, stripe_customer) where id = p_user_id and closed_at is null;
    if v_credits > 0 then
      perform fishserve.post(p_user_id, 'grant', v_credits, null, p_invoice, null, v_ends_at + make_interval(days => v_plan.grace_days));
    elsif v_credits < 0 then
      perform fishserve.take(v_profile, 'adjust', -v_credits, p_invoice);
    end if;
  end if;
  if v_paid then
    update public.payments set user_id = v_invoice.user_id, credits = v_invoice.credits, amount_cents = v_invoice.amount_cents,
      currency = v_invoice.currency, pack = v_invoice.plan, invoice = p_invoice where reference = v_invoice.payment and user_id is null;
    return fishserve.take_back(v_invoice.payment, p_event_id);
  end if;
  return jsonb_build_object('applied', true, 'balance', fishserve.balance_of(v_profile.id), 'closed', v_profile.closed_at is not null);
end $$;

-- As before; the credits of a payment of an invoice are that invoice's.
create or replace function public.apply_stripe_event(
  p_event_id text, p_type text, p_user_id uuid default null, p_credits bigint default null, p_reference text default null, p_kind text default null,
  p_receipt_url text default null, p_customer text default null, p_cents bigint default null, p_currency text default null, p_pack text default null,
  p_object text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_payment public.payments;
  v_cents bigint := coalesce(p_cents, 1000000000000);
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
  update public.payments set receipt_url = coalesce(p_receipt_url, receipt_url) where reference = p_reference;
  return fishserve.take_back(p_reference, p_event_id);
end $$;

-- Entries of the ledger, newest first, a purchase with its receipt, the credits of an invoice with that.
create or replace function public.ledger(p_user_id uuid, p_before bigint default null, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('receipt_url', coalesce(p.receipt_url, i.url)) order by t.id desc), '[]') from (
    select * from public.transactions where user_id = p_user_id and (p_before is null or id < p_before)
    order by id desc limit greatest(0, least(coalesce(p_limit, 50), 200))
  ) t left join public.payments p on t.kind = 'purchase' and p.reference = t.reference
    left join public.invoices i on t.kind = 'grant' and i.user_id = t.user_id and i.id = t.reference
$$;

create or replace function public.close_account(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_keys jsonb;
begin
  perform from public.invoices where user_id = p_user_id order by id for update;
  perform from public.payments where user_id = p_user_id order by reference for update; -- before the profile, as Stripe's events do
  perform fishserve.lock_profile(p_user_id);
  for v_id in select id from public.jobs where user_id = p_user_id and status in ('queued', 'running') loop
    perform public.refund_job(v_id, 'cancelled', 'the account was closed');
  end loop;
  select coalesce(jsonb_agg(object_key), '[]') into v_keys from (
    select object_key from public.jobs where user_id = p_user_id and object_key is not null
    union all select object_key from public.cloned_voices where user_id = p_user_id
  ) o;
  perform fishserve.give_up_object(object_key) from public.jobs where user_id = p_user_id;
  perform fishserve.erase_voice(id) from public.cloned_voices where user_id = p_user_id and status <> 'deleted';
  update public.jobs set text = null, options = '{}', error = null, sha256 = null, object_key = null, api_key_id = null,
    idempotency_key = id::text, fingerprint = '', deleted_at = coalesce(deleted_at, now()) where user_id = p_user_id;
  delete from public.api_keys where user_id = p_user_id;
  delete from public.usage where user_id = p_user_id;
  update public.payments set receipt_url = null where user_id = p_user_id;
  update public.invoices set url = null where user_id = p_user_id;
  update public.profiles set email = null, display_name = null, stripe_customer = null, closed_at = coalesce(closed_at, now()) where id = p_user_id;
  delete from auth.users where id = p_user_id; -- the sign-in goes, too; the trigger below then closes what is closed already
  return jsonb_build_object('object_keys', v_keys);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.get_plan, public.apply_subscription_event, public.apply_invoice_event from public, anon, authenticated;
grant execute on function public.get_plan, public.apply_subscription_event, public.apply_invoice_event to service_role;

insert into fishserve.migrations (name) values ('20261127000300_subscriptions');
