-- Objects that must go from the bucket. A row is written in the transaction that gives up the object, and goes when the bucket has deleted it:
-- a process that dies between the two leaves the row, and the next one deletes.

create table public.deleted_objects (
  key text primary key,
  due_at timestamptz not null default now(), -- an address to upload to may still be good until then
  tried_at timestamptz,
  created_at timestamptz not null default now()
);
create index deleted_objects_due on public.deleted_objects (tried_at nulls first);
alter table public.deleted_objects enable row level security;
revoke all on public.deleted_objects from anon, authenticated, service_role;
create policy "the service reads" on public.deleted_objects for select to service_role using (true);
grant select on public.deleted_objects to service_role;

create function fishserve.give_up_object(p_key text, p_due_at timestamptz default now()) returns void
language sql set search_path = '' as $$
  insert into public.deleted_objects (key, due_at) select p_key, p_due_at where p_key is not null
  on conflict (key) do update set due_at = greatest(deleted_objects.due_at, excluded.due_at)
$$;

-- Keys to delete from the bucket now; those tried longest ago first.
create function public.objects_to_delete(p_limit integer default 100) returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select key from public.deleted_objects where due_at <= now()
    order by tried_at nulls first limit greatest(0, least(p_limit, 1000)) for update skip locked
  ), tried as (
    update public.deleted_objects o set tried_at = now() from due where o.key = due.key returning o.key
  )
  select coalesce(jsonb_agg(key), '[]') from tried
$$;

revoke execute on function public.objects_to_delete, fishserve.give_up_object from public, anon, authenticated;
grant execute on function public.objects_to_delete to service_role;

insert into fishserve.migrations (name) values ('20261125000600_objects');
