-- Lots: the balance of a user, divided by when its credits end. An entry of the ledger that brings credits makes a lot; one that takes them draws on
-- lots that end soonest, and of those that end together on granted ones before bought ones. What a reservation did not need goes back to the lots it
-- came from, the longest-lived first. The trigger below keeps all of it in the statement that inserts the entry; audit_ledger() looks it over.

create table public.credit_lots (
  id bigint generated always as identity primary key,
  user_id uuid not null references public.profiles (id),
  reference text not null, -- of the entry that brought it
  bought boolean not null,
  expires_at timestamptz, -- null: never
  opening bigint not null default 0, -- what it held when lots were first recorded
  remaining bigint not null check (remaining >= 0),
  created_at timestamptz not null default now()
);
create index credit_lots_of_user on public.credit_lots (user_id, expires_at) where remaining > 0;
create index credit_lots_by_reference on public.credit_lots (user_id, reference);
create index credit_lots_to_expire on public.credit_lots (expires_at) where remaining > 0 and expires_at is not null;

create table public.lot_moves (
  entry_id bigint not null references public.transactions (id),
  lot_id bigint not null references public.credit_lots (id),
  amount bigint not null,
  primary key (entry_id, lot_id)
);
create index lot_moves_of_lot on public.lot_moves (lot_id);

alter table public.credit_lots enable row level security;
alter table public.lot_moves enable row level security;
revoke all on public.credit_lots, public.lot_moves from anon, authenticated, service_role;
create policy "owners read" on public.credit_lots for select to authenticated using ((select auth.uid()) = user_id);
create policy "the service reads" on public.credit_lots for select to service_role using (true);
create policy "the service reads" on public.lot_moves for select to service_role using (true);
grant select on public.credit_lots to authenticated, service_role;
grant select on public.lot_moves to service_role;

alter table public.transactions
  add column lot text, -- whose credits a chargeback takes first, and where they go when it is undone: the reference of a lot
  add column expires_at timestamptz, -- when the credits that it brings end; null: never
  drop constraint transactions_sign,
  add constraint transactions_sign check (case kind
    when 'purchase' then amount > 0
    when 'grant' then amount > 0
    when 'reserve' then amount <= 0 -- the estimate
    when 'settle' then amount >= 0 -- what the estimate was too much
    when 'refund' then amount >= 0 -- all of it
    when 'chargeback' then amount <= 0 -- a payment that was refunded or disputed
    when 'expire' then amount < 0 -- credits whose time is over
    when 'adjust' then true -- debt repaid, a dispute won, a plan changed to a smaller one, a correction by hand
    else false end);

-- What users have now lasts for ever. Jobs that are under way have reserved from it.
insert into public.credit_lots (user_id, reference, bought, opening, remaining)
  select p.id, 'opening', true, p.balance + coalesce(r.reserved, 0), p.balance from public.profiles p
  left join (select user_id, sum(reserved)::bigint as reserved from public.jobs where finished_at is null group by user_id) r on r.user_id = p.id
  where p.balance > 0 or r.reserved > 0;
insert into public.lot_moves (entry_id, lot_id, amount)
  select t.id, l.id, t.amount from public.transactions t join public.jobs j on j.id = t.job_id join public.credit_lots l on l.user_id = t.user_id
  where t.kind = 'reserve' and j.finished_at is null and t.amount < 0;

create function fishserve.move_credits(p_entry_id bigint, p_lot_id bigint, p_amount bigint) returns void
language sql set search_path = '' as $$
  update public.credit_lots set remaining = remaining + p_amount where id = p_lot_id;
  insert into public.lot_moves (entry_id, lot_id, amount) values (p_entry_id, p_lot_id, p_amount);
$$;

create function fishserve.apply_to_lots() returns trigger
language plpgsql set search_path = '' as $$
declare
  v_left bigint := abs(new.amount);
  v_part bigint;
  v_lot record;
begin
  if new.amount < 0 then
    for v_lot in
      select id, remaining as most from public.credit_lots where user_id = new.user_id and remaining > 0
      order by (reference = new.lot) desc nulls last, expires_at nulls last, bought, id
    loop
      exit when v_left = 0;
      v_part := least(v_left, v_lot.most);
      perform fishserve.move_credits(new.id, v_lot.id, -v_part);
      v_left := v_left - v_part;
    end loop;
  elsif new.kind in ('settle', 'refund') then
    for v_lot in
      select l.id, -m.amount as most from public.transactions t join public.lot_moves m on m.entry_id = t.id join public.credit_lots l on l.id = m.lot_id
      where t.job_id = new.job_id and t.kind = 'reserve'
      order by l.expires_at desc nulls first, l.bought desc, l.id desc
    loop
      exit when v_left = 0;
      v_part := least(v_left, v_lot.most);
      perform fishserve.move_credits(new.id, v_lot.id, v_part);
      v_left := v_left - v_part;
    end loop;
  elsif new.amount > 0 then
    select id into v_lot from public.credit_lots where user_id = new.user_id and reference = new.lot order by id limit 1;
    if not found then
      insert into public.credit_lots (user_id, reference, bought, expires_at, remaining)
        values (new.user_id, new.reference, new.kind = 'purchase' or new.lot is not null, new.expires_at, 0) returning id into v_lot;
    end if;
    perform fishserve.move_credits(new.id, v_lot.id, v_left);
    v_left := 0;
  end if;
  if v_left <> 0 then raise exception 'the lots of user % lack % credits of an entry', new.user_id, v_left; end if;
  return null;
end $$;
create trigger apply_to_lots after insert on public.transactions for each row execute function fishserve.apply_to_lots();

-- Writes an entry of a locked profile and answers the balance; credits that come in repay debt first. p_lot and p_expires_at: as in the ledger.
drop function fishserve.post;
create function fishserve.post(p_user_id uuid, p_kind text, p_amount bigint, p_job_id uuid, p_reference text, p_lot text default null,
  p_expires_at timestamptz default null) returns bigint
language plpgsql set search_path = '' as $$
declare
  v_balance bigint;
  v_repaid bigint;
begin
  insert into public.transactions (user_id, kind, amount, balance_after, job_id, reference, lot, expires_at)
    values (p_user_id, p_kind, p_amount, 0, p_job_id, p_reference, p_lot, p_expires_at) returning balance_after into v_balance;
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

-- Locks a profile, and first takes the credits whose time is over: whoever spends or takes credits comes through here.
create or replace function fishserve.lock_profile(p_user_id uuid) returns public.profiles
language plpgsql set search_path = '' as $$
declare
  v_profile public.profiles;
  v_over bigint;
begin
  select * into v_profile from public.profiles where id = p_user_id for no key update;
  if not found then
    perform fishserve.ensure_profile(p_user_id);
    select * into v_profile from public.profiles where id = p_user_id for no key update;
    if not found then raise sqlstate 'PT404' using message = format('no user has the id %s', p_user_id); end if;
  end if;
  select sum(remaining) into v_over from public.credit_lots where user_id = p_user_id and remaining > 0 and expires_at <= now();
  if v_over > 0 then
    v_profile.balance := fishserve.post(p_user_id, 'expire', -v_over, null,
      'after ' || (select max(id) from public.transactions where user_id = p_user_id)); -- the lots that end first are those that are over
  end if;
  return v_profile;
end $$;

-- Gives credits, once a kind and reference: {balance, applied}. With kind 'adjust' the number may be negative. Those with an end are spent first.
drop function public.grant_credits;
create function public.grant_credits(p_user_id uuid, p_credits bigint, p_reference text, p_kind text default 'grant',
  p_expires_at timestamptz default null) returns jsonb
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
  if p_expires_at <= now() or p_credits < 0 and p_expires_at is not null then
    raise sqlstate 'PT422' using message = format('%s credits cannot end at %s: a grant ends later than now', p_credits, p_expires_at);
  end if;
  if v_profile.balance + p_credits < 0 then
    raise sqlstate 'PT402' using message = format('the balance is %s; %s cannot be taken', v_profile.balance, -p_credits);
  end if;
  return jsonb_build_object('balance', fishserve.post(p_user_id, p_kind, p_credits, null, p_reference, null, p_expires_at), 'applied', true);
end $$;

-- The sweeper: takes the credits whose time is over from up to so many users, for who does nothing: {users}.
create function public.expire_credits(p_limit integer default 100) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_users integer := 0;
begin
  for v_id in -- by user: two sweepers meet the profiles in one order
    select user_id from (
      select distinct user_id from public.credit_lots where remaining > 0 and expires_at <= now() limit greatest(0, least(p_limit, 1000))
    ) due order by user_id
  loop
    perform fishserve.lock_profile(v_id);
    v_users := v_users + 1;
  end loop;
  return jsonb_build_object('users', v_users);
end $$;

-- Whose balance is not the sum of the ledger or of the lots, which job's entries are not what it cost, and which lot or entry is not the sum of its
-- moves: always []. For a nightly look and the tests.
create or replace function public.audit_ledger() returns jsonb
language sql stable security definer set search_path = '' as $$
  with wrong as (
    select jsonb_build_object('user_id', p.id, 'expected', p.balance, 'ledger', coalesce(sum(t.amount), 0)) as entry
    from public.profiles p left join public.transactions t on t.user_id = p.id
    group by p.id having p.balance <> coalesce(sum(t.amount), 0)
    union all
    select jsonb_build_object('job_id', j.id, 'expected', -case when j.finished_at is null then j.reserved else j.charged end, 'ledger', coalesce(sum(t.amount), 0))
    from public.jobs j left join public.transactions t on t.job_id = j.id
    group by j.id having coalesce(sum(t.amount), 0) <> -case when j.finished_at is null then j.reserved else j.charged end
      or count(*) <> case when j.finished_at is null then 1 else 2 end
    union all
    select jsonb_build_object('user_id', p.id, 'expected', p.balance, 'lots', coalesce(sum(l.remaining), 0))
    from public.profiles p left join public.credit_lots l on l.user_id = p.id
    group by p.id having p.balance <> coalesce(sum(l.remaining), 0)
    union all
    select jsonb_build_object('lot', l.id, 'expected', l.remaining, 'moves', l.opening + coalesce(sum(m.amount), 0))
    from public.credit_lots l left join public.lot_moves m on m.lot_id = l.id
    group by l.id having l.remaining <> l.opening + coalesce(sum(m.amount), 0)
    union all
    select jsonb_build_object('entry', t.id, 'expected', t.amount, 'moves', sum(m.amount))
    from public.transactions t join public.lot_moves m on m.entry_id = t.id
    group by t.id having t.amount <> sum(m.amount)
  )
  select coalesce(jsonb_agg(entry), '[]') from wrong
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.grant_credits, public.expire_credits from public, anon, authenticated;
grant execute on function public.grant_credits, public.expire_credits to service_role;

insert into fishserve.migrations (name) values ('20261127000200_lots');
