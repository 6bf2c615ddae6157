-- What operators do at the desk: each act is one transaction, which also writes who did it and why. The rules are those of the functions that
-- everybody else uses; an act adds its row. `actor` is what the operator's command says: whoever holds the service's key can call all of this.

create table public.admin_actions (
  id bigint generated always as identity primary key,
  actor text not null check (char_length(actor) between 1 and 100),
  action text not null,
  target text not null, -- the id of a user, a job, a payment or a price
  user_id uuid references public.profiles (id), -- whose that is
  reason text not null check (char_length(reason) between 1 and 500),
  details jsonb not null default '{}',
  at timestamptz not null default now()
);
create index admin_actions_of_target on public.admin_actions (target, id);
create index admin_actions_of_user on public.admin_actions (user_id, id);
alter table public.admin_actions enable row level security;
revoke all on public.admin_actions from anon, authenticated, service_role;
create policy "the service reads" on public.admin_actions for select to service_role using (true);
grant select on public.admin_actions to service_role;

create function fishserve.keep_actions() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception 'what operators did is append-only';
end $$;
create trigger keep_actions before update or delete on public.admin_actions for each row execute function fishserve.keep_actions();
create trigger keep_all_actions before truncate on public.admin_actions for each statement execute function fishserve.keep_actions();

create function fishserve.record_action(
  p_actor text, p_action text, p_target text, p_user_id uuid, p_reason text, p_details jsonb default '{}'
) returns bigint
language plpgsql set search_path = '' as $$
declare
  v_id bigint;
begin
  if coalesce(char_length(btrim(p_actor)), 0) not between 1 and 100 then
    raise sqlstate 'PT422' using message = 'an act needs the name of its operator, of 1 to 100 characters';
  end if;
  if coalesce(char_length(btrim(p_reason)), 0) not between 1 and 500 then
    raise sqlstate 'PT422' using message = 'an act needs a reason of 1 to 500 characters';
  end if;
  insert into public.admin_actions (actor, action, target, user_id, reason, details)
    values (btrim(p_actor), p_action, p_target, p_user_id, btrim(p_reason), p_details) returning id into v_id;
  return v_id;
end $$;

-- The locked profile of an account that an operator may act on.
create function fishserve.account_at_desk(p_user_id uuid) returns public.profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.lock_profile(p_user_id);
begin
  if v_profile.closed_at is not null then
    raise sqlstate 'PT409' using message = format('the account %s was closed on %s', p_user_id, to_char(v_profile.closed_at at time zone 'utc', 'YYYY-MM-DD'));
  end if;
  return v_profile;
end $$;

-- {balance, applied, action}: a reference grants once, and only then is there an action.
create function public.admin_grant(p_actor text, p_reason text, p_user_id uuid, p_credits bigint, p_reference text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_done jsonb;
  v_action bigint;
begin
  perform fishserve.account_at_desk(p_user_id);
  v_done := public.grant_credits(p_user_id, p_credits, p_reference);
  if (v_done ->> 'applied')::boolean then
    v_action := fishserve.record_action(p_actor, 'grant', p_user_id::text, p_user_id, p_reason, jsonb_build_object('credits', p_credits, 'reference', p_reference));
  end if;
  return v_done || jsonb_build_object('action', v_action);
end $$;

-- As admin_grant, the other way: at most the balance.
create function public.admin_take(p_actor text, p_reason text, p_user_id uuid, p_credits bigint, p_reference text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_done jsonb;
  v_action bigint;
begin
  perform fishserve.lock_profile(p_user_id);
  if p_credits is null or p_credits <= 0 then
    raise sqlstate 'PT422' using message = format('%s credits cannot be taken', coalesce(p_credits::text, 'no'));
  end if;
  v_done := public.grant_credits(p_user_id, -p_credits, p_reference, 'adjust');
  if (v_done ->> 'applied')::boolean then
    v_action := fishserve.record_action(p_actor, 'take', p_user_id::text, p_user_id, p_reason, jsonb_build_object('credits', p_credits, 'reference', p_reference));
  end if;
  return v_done || jsonb_build_object('action', v_action);
end $$;

-- The account spends nothing until then; null: until it is lifted. Its jobs that nobody speaks yet end, and their credits come back.
create function public.admin_suspend(p_actor text, p_reason text, p_user_id uuid, p_until timestamptz default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_until timestamptz := coalesce(p_until, now() + interval '100 years'); -- Supabase cannot read 'infinity'
  v_job public.jobs;
  v_ended integer := 0;
begin
  perform fishserve.account_at_desk(p_user_id);
  if v_until <= now() then
    raise sqlstate 'PT422' using message = format('%s is over; an account is suspended until a later time', to_char(p_until at time zone 'utc', 'YYYY-MM-DD HH24:MI'));
  end if;
  update auth.users set banned_until = v_until where id = p_user_id;
  if not found then raise sqlstate 'PT404' using message = format('no user has the id %s', p_user_id); end if;
  for v_job in
    select * from public.jobs where user_id = p_user_id and status = 'queued' and (lease_until is null or lease_until < now()) for no key update
  loop
    perform fishserve.end_job(v_job, 'cancelled', 'the account was suspended', v_job.heard_seconds);
    v_ended := v_ended + 1;
  end loop;
  return jsonb_build_object('user_id', p_user_id, 'suspended_until', v_until, 'ended_jobs', v_ended,
    'action', fishserve.record_action(p_actor, 'suspend', p_user_id::text, p_user_id, p_reason, jsonb_build_object('until', v_until, 'ended_jobs', v_ended)));
end $$;

create function public.admin_unsuspend(p_actor text, p_reason text, p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform fishserve.account_at_desk(p_user_id);
  update auth.users set banned_until = null where id = p_user_id and banned_until > now();
  if not found then raise sqlstate 'PT409' using message = format('the account %s is not suspended', p_user_id); end if;
  return jsonb_build_object('user_id', p_user_id, 'action', fishserve.record_action(p_actor, 'unsuspend', p_user_id::text, p_user_id, p_reason));
end $$;

-- One key of a user, or all.
create function public.admin_revoke_keys(p_actor text, p_reason text, p_user_id uuid, p_key_id uuid default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_prefixes jsonb;
begin
  perform fishserve.account_at_desk(p_user_id);
  with revoked as (
    update public.api_keys set revoked_at = now() where user_id = p_user_id and revoked_at is null and (p_key_id is null or id = p_key_id) returning prefix
  )
  select jsonb_agg(prefix order by prefix) into v_prefixes from revoked;
  if v_prefixes is null then
    raise sqlstate 'PT404' using message = format('the account %s has no key %sthat is good', p_user_id, coalesce(p_key_id || ' ', ''));
  end if;
  return jsonb_build_object('revoked', v_prefixes,
    'action', fishserve.record_action(p_actor, 'revoke keys', p_user_id::text, p_user_id, p_reason, jsonb_build_object('prefixes', v_prefixes)));
end $$;

-- Ends a job at no cost but that of what its client has heard: {job, balance, action}.
create function public.admin_cancel_job(p_actor text, p_reason text, p_job_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_done jsonb := public.refund_job(p_job_id, 'cancelled', 'cancelled by an operator');
begin
  if not (v_done ->> 'changed')::boolean then
    raise sqlstate 'PT409' using message = format('the job %s is over: %s', p_job_id, v_done -> 'job' ->> 'status');
  end if;
  return jsonb_build_object('job', (v_done -> 'job') - 'text', 'balance', v_done -> 'balance', 'action', fishserve.record_action(
    p_actor, 'cancel job', p_job_id::text, (v_done -> 'job' ->> 'user_id')::uuid, p_reason, jsonb_build_object('charged', v_done -> 'job' -> 'charged')));
end $$;

-- Speaks the text of a job that ended without its result once more, as a new job of its user at today's price: {job, balance, action}.
-- The arguments are those of process_audio_request; a retry that is under way, or succeeded, is not made twice.
create function public.admin_retry_job(
  p_actor text, p_reason text, p_job_id uuid, p_token_hash text, p_letters numeric default null, p_silence numeric default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_job public.jobs;
  v_done jsonb;
begin
  select * into v_job from public.jobs where id = p_job_id;
  if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
  if v_job.status not in ('failed', 'cancelled', 'expired') then
    raise sqlstate 'PT409' using message = format('the job %s is %s; only one that failed, was cancelled or expired is retried', p_job_id, v_job.status);
  end if;
  if v_job.text is null then raise sqlstate 'PT410' using message = format('the text of the job %s was deleted', p_job_id); end if;
  v_done := public.process_audio_request(p_user_id => v_job.user_id, p_idempotency_key => 'retry ' || p_job_id, p_fingerprint => v_job.fingerprint,
    p_text => v_job.text, p_token_hash => p_token_hash, p_voice_id => v_job.voice_id, p_options => v_job.options, p_letters => p_letters,
    p_silence => p_silence);
  if (v_done ->> 'replayed')::boolean then
    raise sqlstate 'PT409' using message = format('the job %s was retried: it is the job %s', p_job_id, v_done -> 'job' ->> 'id');
  end if;
  return jsonb_build_object('job', (v_done -> 'job') - 'text', 'balance', v_done -> 'balance', 'action', fishserve.record_action(
    p_actor, 'retry job', p_job_id::text, v_job.user_id, p_reason, jsonb_build_object('job', v_done -> 'job' -> 'id', 'reserved', v_done -> 'job' -> 'reserved')));
end $$;

create function public.admin_set_price(
  p_actor text, p_reason text, p_credits_per_second numeric, p_minimum bigint default null, p_characters_per_second numeric default null,
  p_name text default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_price jsonb := public.set_price(p_credits_per_second, p_minimum, p_characters_per_second, p_name);
begin
  return jsonb_build_object('price', v_price, 'action', fishserve.record_action(p_actor, 'set price', v_price ->> 'id', null, p_reason, v_price));
end $$;

-- Refunds: Stripe is asked between two transactions. The first writes what is to be done, the last what came of it; a process that dies between
-- them leaves a refund without an outcome, which the next call for that payment takes up.

-- How much of a payment's money went back, as far as is known.
create function fishserve.cents_returned(p_payment public.payments) returns bigint
language sql stable set search_path = '' as $$
  select least(p_payment.amount_cents,
    greatest(coalesce(sum(cents) filter (where kind = 'refund' and not undone), 0),
      p_payment.stated_cents - coalesce(sum(cents) filter (where kind = 'refund' and undone), 0))
    + coalesce(sum(cents) filter (where kind = 'dispute' and not undone), 0))::bigint
  from public.payment_returns where reference = p_payment.reference
$$;

create function fishserve.has_outcome(p_action public.admin_actions) returns boolean
language sql stable set search_path = '' as $$
  select exists (select from public.admin_actions a where a.target = p_action.target and a.action in ('refund booked', 'refund refused')
    and a.details -> 'of' = to_jsonb(p_action.id))
$$;

-- {action, reference, cents, currency, resumed}: what to ask Stripe for. cents null: all that is left. `resumed`: an earlier call wrote it.
create function public.admin_begin_refund(p_actor text, p_reason text, p_reference text, p_cents bigint default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_payment public.payments;
  v_open public.admin_actions;
  v_left bigint;
  v_cents bigint;
  v_action bigint;
begin
  select * into v_payment from public.payments where reference = p_reference and user_id is not null for update;
  if not found then raise sqlstate 'PT404' using message = format('there is no payment %s', p_reference); end if;
  select * into v_open from public.admin_actions a where a.target = p_reference and a.action = 'refund' and not fishserve.has_outcome(a) order by id limit 1;
  if found then
    if p_cents <> (v_open.details ->> 'cents')::bigint then
      raise sqlstate 'PT409' using message = format('a refund of %s was begun and its outcome is not known: ask for that amount first', v_open.details ->> 'cents');
    end if;
    return jsonb_build_object('action', v_open.id, 'reference', p_reference, 'cents', v_open.details -> 'cents', 'currency', v_payment.currency, 'resumed', true);
  end if;
  v_left := v_payment.amount_cents - fishserve.cents_returned(v_payment);
  v_cents := coalesce(p_cents, v_left);
  if v_left = 0 then raise sqlstate 'PT409' using message = format('all of the payment %s went back before', p_reference); end if;
  if v_cents not between 1 and v_left then
    raise sqlstate 'PT422' using message = format('%s cannot be refunded: %s of the payment are left, in the smallest unit of its currency', v_cents, v_left);
  end if;
  v_action := fishserve.record_action(p_actor, 'refund', p_reference, v_payment.user_id, p_reason, jsonb_build_object('cents', v_cents, 'currency', v_payment.currency));
  return jsonb_build_object('action', v_action, 'reference', p_reference, 'cents', v_cents, 'currency', v_payment.currency, 'resumed', false);
end $$;

-- Stripe made the refund: books it, which takes the credits, once, whether this call or a webhook comes first. {credits, balance, debt}:
-- how many credits the payment has lost in all, and what its user has.
create function public.admin_end_refund(p_actor text, p_action bigint, p_refund text, p_cents bigint) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_action public.admin_actions;
  v_payment public.payments;
  v_profile public.profiles;
begin
  select * into v_action from public.admin_actions where id = p_action and action = 'refund';
  if not found then raise sqlstate 'PT404' using message = format('there is no refund %s', p_action); end if;
  perform from public.payments where reference = v_action.target for update;
  perform public.apply_stripe_event('desk ' || p_refund, 'refund.created', p_reference => v_action.target, p_kind => 'refund', p_cents => p_cents,
    p_object => p_refund);
  if not fishserve.has_outcome(v_action) then
    perform fishserve.record_action(p_actor, 'refund booked', v_action.target, v_action.user_id, v_action.reason,
      jsonb_build_object('of', p_action, 'refund', p_refund, 'cents', p_cents));
  end if;
  select * into v_payment from public.payments where reference = v_action.target;
  select * into v_profile from public.profiles where id = v_payment.user_id;
  return jsonb_build_object('credits', v_payment.taken, 'balance', v_profile.balance, 'debt', v_profile.debt);
end $$;

-- Stripe refused: nothing was refunded.
create function public.admin_fail_refund(p_actor text, p_action bigint, p_error text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_action public.admin_actions;
begin
  select * into v_action from public.admin_actions where id = p_action and action = 'refund';
  if not found then raise sqlstate 'PT404' using message = format('there is no refund %s', p_action); end if;
  perform from public.payments where reference = v_action.target for update;
  if not fishserve.has_outcome(v_action) then
    perform fishserve.record_action(p_actor, 'refund refused', v_action.target, v_action.user_id, v_action.reason,
      jsonb_build_object('of', p_action, 'error', left(p_error, 500)));
  end if;
  return jsonb_build_object('reference', v_action.target);
end $$;

-- The text of a job, for retrying it: {user_id, text}.
create function public.job_text(p_job_id uuid) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_job public.jobs;
begin
  select * into v_job from public.jobs where id = p_job_id;
  if not found then raise sqlstate 'PT404' using message = format('there is no job %s', p_job_id); end if;
  return jsonb_build_object('user_id', v_job.user_id, 'text', v_job.text);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.admin_grant, public.admin_take, public.admin_suspend, public.admin_unsuspend, public.admin_revoke_keys,
  public.admin_cancel_job, public.admin_retry_job, public.admin_set_price, public.admin_begin_refund, public.admin_end_refund, public.admin_fail_refund,
  public.job_text from public, anon, authenticated;
grant execute on function public.admin_grant, public.admin_take, public.admin_suspend, public.admin_unsuspend, public.admin_revoke_keys,
  public.admin_cancel_job, public.admin_retry_job, public.admin_set_price, public.admin_begin_refund, public.admin_end_refund, public.admin_fail_refund,
  public.job_text to service_role;

insert into fishserve.migrations (name) values ('20261127000500_admin_actions');
