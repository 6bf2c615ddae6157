-- Which version of the terms and of the privacy policy a user has accepted, and when. Rows stay when the account is closed: they prove the contract,
-- and name nobody by then.

create function fishserve.append_only() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception 'the table % is append-only', tg_table_name;
end $$;

create table public.acceptances (
  id bigint generated always as identity primary key,
  user_id uuid not null references public.profiles (id),
  document text not null check (document in ('terms', 'privacy')),
  version text not null check (char_length(version) between 1 and 100),
  at timestamptz not null default now(),
  unique (user_id, document, version)
);
create trigger append_only before update or delete on public.acceptances for each row execute function fishserve.append_only();
create trigger append_only_all before truncate on public.acceptances for each statement execute function fishserve.append_only();

alter table public.acceptances enable row level security;
revoke all on public.acceptances from anon, authenticated, service_role;
create policy "owners read" on public.acceptances for select to authenticated using ((select auth.uid()) = user_id);
grant select on public.acceptances to authenticated, service_role;

-- [{document, version, at}], the newest first.
create function public.list_acceptances(p_user_id uuid) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object('document', document, 'version', version, 'at', at) order by id desc), '[]')
  from public.acceptances where user_id = p_user_id
$$;

-- Accepts {document: version, ...}, each once, and answers as list_acceptances.
create function public.accept_documents(p_user_id uuid, p_versions jsonb) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  perform fishserve.open_profile(p_user_id);
  insert into public.acceptances (user_id, document, version) select p_user_id, key, value from jsonb_each_text(p_versions) order by key
  on conflict do nothing;
  return public.list_acceptances(p_user_id);
end $$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.list_acceptances, public.accept_documents from public, anon, authenticated;
grant execute on function public.list_acceptances, public.accept_documents to service_role;

insert into fishserve.migrations (name) values ('20261128000510_acceptances');
