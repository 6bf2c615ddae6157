-- One profile a user of auth.users. It has no foreign key there: an account that is deleted leaves its ledger behind, without a name on it.
-- A user may read the own row and change the display name; balance, debt and plan have no way in but the functions.

create table public.profiles (
  id uuid primary key, -- auth.users.id
  email text,
  display_name text check (char_length(display_name) <= 80),
  balance bigint not null default 0 check (balance >= 0), -- the sum of the ledger, kept by a trigger on it
  debt bigint not null default 0 check (debt >= 0), -- what a refund or dispute took that had been spent; the next credits repay it
  plan text not null default 'free',
  stripe_customer text,
  closed_at timestamptz,
  created_at timestamptz not null default now()
);

alter table public.profiles enable row level security;
revoke all on public.profiles from anon, authenticated, service_role;
create policy "owners read" on public.profiles for select to authenticated using ((select auth.uid()) = id);
create policy "owners change their name" on public.profiles for update to authenticated
  using ((select auth.uid()) = id and closed_at is null) with check ((select auth.uid()) = id);
grant select (id, email, display_name, balance, debt, plan, created_at), update (display_name) on public.profiles to authenticated;
grant select on public.profiles to service_role;

insert into fishserve.migrations (name) values ('20261125000300_profiles');
