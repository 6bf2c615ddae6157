-- Accounts with members: the expand step of teams.md. It changes no row that is there, and the program that runs beside it knows nothing of it.
-- Each transaction takes its locks within two seconds or gives up, so that no request waits for long: run the file again until it ends without an error.
-- It is no migration yet: the program that uses it brings it as one.

-- 1. Who belongs to an account. An account is a row of profiles: balance, ledger, keys, jobs, voices and payments are its own.
begin;
set local lock_timeout = '2s';
create table if not exists public.account_members (
  account_id uuid not null references public.profiles (id),
  user_id uuid not null references public.profiles (id),
  role text not null check (role in ('owner', 'admin', 'member')),
  created_at timestamptz not null default now(),
  primary key (account_id, user_id)
);
create index if not exists account_members_of_user on public.account_members (user_id);
alter table public.account_members enable row level security;
revoke all on public.account_members from anon, authenticated, service_role;
drop policy if exists "members read" on public.account_members;
create policy "members read" on public.account_members for select to authenticated using ((select auth.uid()) = user_id);
grant select on public.account_members to authenticated, service_role;
commit;

-- 2. Who signs up from now on owns the own account; who leaves is a member of none.
begin;
set local lock_timeout = '2s';
create or replace function fishserve.keep_members() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    insert into public.account_members (account_id, user_id, role) values (new.id, new.id, 'owner') on conflict do nothing;
  else
    delete from public.account_members where user_id = new.id;
  end if;
  return null;
end $$;
revoke execute on function fishserve.keep_members from public;
create or replace trigger keep_members_of_new after insert on public.profiles for each row execute function fishserve.keep_members();
create or replace trigger keep_members_of_closed after update of closed_at on public.profiles for each row
  when (old.closed_at is null and new.closed_at is not null) execute function fishserve.keep_members();
commit;

-- 3. Which member asked for a job or made a key; null: the account's only one. A column without a default rewrites no table.
begin;
set local lock_timeout = '2s';
alter table public.jobs add column if not exists by_user uuid;
commit;
begin;
set local lock_timeout = '2s';
alter table public.api_keys add column if not exists by_user uuid;
commit;

-- 4. Who has an account owns it: a thousand a transaction.
create or replace procedure fishserve.backfill_members()
language plpgsql as $$
declare
  v_after uuid := '00000000-0000-0000-0000-000000000000';
  v_ids uuid[];
begin
  loop
    v_ids := array(select id from public.profiles where id > v_after and closed_at is null order by id limit 1000 for share);
    exit when cardinality(v_ids) = 0;
    insert into public.account_members (account_id, user_id, role) select id, id, 'owner' from unnest(v_ids) id on conflict do nothing;
    v_after := v_ids[cardinality(v_ids)];
    commit;
  end loop;
end $$;
call fishserve.backfill_members();
drop procedure fishserve.backfill_members;

-- 5. Nobody is missing.
do $$
declare
  v_missing bigint;
begin
  select count(*) into v_missing from public.profiles p
    where closed_at is null and not exists (select from public.account_members m where m.account_id = p.id and m.user_id = p.id and m.role = 'owner');
  if v_missing > 0 then raise exception '% accounts have no owner', v_missing; end if;
end $$;
