-- The ledger: append-only, and the only way a balance changes. Inserting an entry moves the balance in the same statement, so their sums cannot part.
-- Every function that moves credits first locks the profile (fishserve.lock_profile), then the job: one order, no deadlock.

create table public.transactions (
  id bigint generated always as identity primary key,
  user_id uuid not null references public.profiles (id),
  kind text not null,
  amount bigint not null,
  balance_after bigint not null,
  job_id uuid,
  reference text not null,
  created_at timestamptz not null default now(),
  unique (user_id, kind, reference),
  constraint transactions_sign check (case kind
    when 'purchase' then amount > 0
    when 'grant' then amount > 0
    when 'reserve' then amount <= 0 -- the estimate
    when 'settle' then amount >= 0 -- what the estimate was too much
    when 'refund' then amount >= 0 -- all of it
    when 'chargeback' then amount <= 0 -- a payment that was refunded or disputed
    when 'adjust' then true -- debt repaid, a dispute won, a correction by hand
    else false end),
  constraint transactions_of_jobs check ((kind in ('reserve', 'settle', 'refund')) = (job_id is not null))
);
create unique index transactions_one_reservation on public.transactions (job_id) where kind = 'reserve';
create unique index transactions_one_end on public.transactions (job_id) where kind in ('settle', 'refund');
create index transactions_of_user on public.transactions (user_id, id);
create index transactions_of_job on public.transactions (job_id);

alter table public.transactions enable row level security;
revoke all on public.transactions from anon, authenticated, service_role;
create policy "owners read" on public.transactions for select to authenticated using ((select auth.uid()) = user_id);
grant select on public.transactions to authenticated, service_role;

create function fishserve.apply_entry() returns trigger
language plpgsql set search_path = '' as $$
begin
  update public.profiles set balance = balance + new.amount where id = new.user_id returning balance into new.balance_after;
  return new;
end $$;
create trigger apply_entry before insert on public.transactions for each row execute function fishserve.apply_entry();

create function fishserve.keep_entries() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception 'the ledger is append-only: correct an entry by another one (select public.grant_credits(..., p_kind => ''adjust''))';
end $$;
create trigger keep_entries before update or delete on public.transactions for each row execute function fishserve.keep_entries();
create trigger keep_all_entries before truncate on public.transactions for each statement execute function fishserve.keep_entries();

-- Depth 2: this trigger runs inside the ledger's.
create function fishserve.guard_balance() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' and new.balance <> 0 or tg_op = 'UPDATE' and new.balance <> old.balance and pg_trigger_depth() < 2 then
    raise exception 'a balance changes by an entry of the ledger alone: select public.grant_credits(...)';
  end if;
  return new;
end $$;
create trigger guard_balance before insert or update on public.profiles for each row execute function fishserve.guard_balance();

-- Writes an entry of a locked profile and answers the balance; credits that come in repay debt first.
create function fishserve.post(p_user_id uuid, p_kind text, p_amount bigint, p_job_id uuid, p_reference text) returns bigint
language plpgsql set search_path = '' as $$
declare
  v_balance bigint;
  v_repaid bigint;
begin
  insert into public.transactions (user_id, kind, amount, balance_after, job_id, reference)
    values (p_user_id, p_kind, p_amount, 0, p_job_id, p_reference) returning balance_after into v_balance;
  if p_amount > 0 then
    select least(debt, v_balance) into v_repaid from public.profiles where id = p_user_id;
    if v_repaid > 0 then
      update public.profiles set debt = debt - v_repaid where id = p_user_id;
      insert into public.transactions (user_id, kind, amount, balance_after, reference)
        values (p_user_id, 'adjust', -v_repaid, 0, 'debt:' || p_kind || ':' || p_reference) returning balance_after into v_balance;
    end if;
  end if;
  return v_balance;
end $$;

-- Makes the profile of a user of auth.users where it is missing, with the credits a new account gets.
create function fishserve.ensure_profile(p_user_id uuid) returns void
language plpgsql set search_path = '' as $$
declare
  v_grant bigint;
begin
  insert into public.profiles (id, email) select u.id, u.email from auth.users u where u.id = p_user_id on conflict do nothing;
  if found then
    select grant_on_sign_up into v_grant from public.settings;
    if v_grant > 0 then perform fishserve.post(p_user_id, 'grant', v_grant, null, 'sign-up'); end if;
  end if;
end $$;

create function fishserve.lock_profile(p_user_id uuid) returns public.profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.profiles;
begin
  select * into v_profile from public.profiles where id = p_user_id for no key update;
  if not found then
    perform fishserve.ensure_profile(p_user_id);
    select * into v_profile from public.profiles where id = p_user_id for no key update;
    if not found then raise sqlstate 'PT404' using message = format('no user has the id %s', p_user_id); end if;
  end if;
  return v_profile;
end $$;

create function fishserve.open_profile(p_user_id uuid) returns public.profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.lock_profile(p_user_id);
begin
  if v_profile.closed_at is not null then raise sqlstate 'PT403' using message = 'this account was closed'; end if;
  if exists (select from auth.users where id = p_user_id and banned_until > now()) then
    raise sqlstate 'PT403' using message = 'this account is suspended';
  end if;
  return v_profile;
end $$;

-- Gives credits, once a kind and reference: {balance, applied}. With kind 'adjust' the number may be negative.
create function public.grant_credits(p_user_id uuid, p_credits bigint, p_reference text, p_kind text default 'grant') returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_profile public.profiles := fishserve.lock_profile(p_user_id);
begin
  if p_kind is null or p_kind not in ('grant', 'adjust') then
    raise sqlstate 'PT422' using message = format('credits are given as grant or adjust, not as %s', coalesce(p_kind, 'null'));
  end if;
  if p_reference is null or btrim(p_reference) = '' then raise sqlstate 'PT422' using message = 'a grant needs a reference: it is given once a reference'; end if;
  if exists (select from public.transactions where user_id = p_user_id and kind = p_kind and reference = p_reference) then
    return jsonb_build_object('balance', v_profile.balance, 'applied', false);
  end if;
  if p_credits is null or p_credits = 0 or p_credits < 0 and p_kind = 'grant' then
    raise sqlstate 'PT422' using message = format('%s credits cannot be given', coalesce(p_credits::text, 'no'));
  end if;
  if v_profile.balance + p_credits < 0 then
    raise sqlstate 'PT402' using message = format('the balance is %s; %s cannot be taken', v_profile.balance, -p_credits);
  end if;
  return jsonb_build_object('balance', fishserve.post(p_user_id, p_kind, p_credits, null, p_reference), 'applied', true);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.grant_credits from public, anon, authenticated;
grant execute on function public.grant_credits to service_role;

insert into fishserve.migrations (name) values ('20261125000400_ledger');
