-- Reports of misuse: anybody may report speech or a voice, with or without an account.

create table public.reports (
  id uuid primary key default gen_random_uuid(),
  kind text not null check (kind in ('speech', 'voice')),
  subject text not null check (char_length(subject) between 1 and 500), -- where it is heard, or an id
  details text not null check (char_length(details) between 1 and 5000),
  contact text check (char_length(contact) between 1 and 320),
  user_id uuid references public.profiles (id), -- who reported it, if signed in
  created_at timestamptz not null default now(),
  closed_at timestamptz,
  closed_by text,
  outcome text,
  check ((closed_at is null) = (outcome is null) and (closed_at is null) = (closed_by is null))
);
create index reports_by_time on public.reports (created_at);
create index reports_of_user on public.reports (user_id) where user_id is not null;
create index reports_closed on public.reports (closed_at) where closed_at is not null;
alter table public.reports enable row level security;
revoke all on public.reports from anon, authenticated, service_role;
create policy "the service reads" on public.reports for select to service_role using (true);
grant select on public.reports to service_role;

alter table public.settings add column report_days integer default 1095 check (report_days > 0); -- how long a closed report is kept; null: for ever

create function public.report_misuse(p_kind text, p_subject text, p_details text, p_contact text default null, p_user_id uuid default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_profile public.profiles;
begin
  if p_user_id is not null then v_profile := fishserve.lock_profile(p_user_id); end if;
  insert into public.reports (kind, subject, details, contact, user_id)
    values (p_kind, btrim(p_subject), btrim(p_details), nullif(btrim(p_contact), ''), case when v_profile.closed_at is null then p_user_id end)
    returning id into v_id;
  return jsonb_build_object('id', v_id);
exception when check_violation then
  raise sqlstate 'PT422' using message = 'a report is of speech or a voice, says which in 1 to 500 characters and why in 1 to 5000, with an address of at most 320';
end $$;

-- [report], the oldest open one first; with `closed` also those that are closed, the newest first.
create function public.admin_reports(p_closed boolean default false, p_limit integer default 50) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(r) order by r.closed_at desc nulls first, r.created_at, r.id), '[]') from (
    select * from public.reports where p_closed or closed_at is null
    order by closed_at desc nulls first, created_at, id limit greatest(0, least(coalesce(p_limit, 50), 1000))
  ) r
$$;

-- {report, action}: the reason is the outcome.
create function public.admin_close_report(p_actor text, p_reason text, p_report_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_report public.reports;
  v_action bigint;
begin
  select * into v_report from public.reports where id = p_report_id for update;
  if not found then raise sqlstate 'PT404' using message = format('there is no report %s', p_report_id); end if;
  if v_report.closed_at is not null then
    raise sqlstate 'PT409' using message = format('the report %s was closed by %s: %s', p_report_id, v_report.closed_by, v_report.outcome);
  end if;
  v_action := fishserve.record_action(p_actor, 'close report', p_report_id::text, v_report.user_id, p_reason);
  update public.reports set closed_at = now(), closed_by = btrim(p_actor), outcome = btrim(p_reason) where id = p_report_id returning * into v_report;
  return jsonb_build_object('report', to_jsonb(v_report), 'action', v_action);
end $$;

-- Closed reports that have been kept long enough: {expired}, at most 1000.
create function public.expire_reports() returns jsonb
language sql security definer set search_path = '' as $$
  with due as (
    select id from public.reports where closed_at < now() - make_interval(days => (select report_days from public.settings))
    order by closed_at limit 1000 for update skip locked
  ), expired as (
    delete from public.reports r using due where r.id = due.id returning 1
  )
  select jsonb_build_object('expired', count(*)) from expired
$$;

-- A closed account is no longer the reporter, and is not written to. What was reported is about somebody else and stays until it is dealt with.
create function fishserve.forget_reporter() returns trigger
language plpgsql set search_path = '' as $$
begin
  update public.reports set user_id = null, contact = null where user_id = new.id;
  return null;
end $$;
create trigger forget_reporter after update of closed_at on public.profiles for each row
  when (old.closed_at is null and new.closed_at is not null) execute function fishserve.forget_reporter();

-- {open, oldest_seconds}
create function public.report_figures() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('open', count(*), 'oldest_seconds', coalesce(extract(epoch from now() - min(created_at)), 0))
  from public.reports where closed_at is null
$$;

revoke execute on all functions in schema fishserve from public;
revoke execute on function public.report_misuse, public.admin_reports, public.admin_close_report, public.expire_reports, public.report_figures
  from public, anon, authenticated;
grant execute on function public.report_misuse, public.admin_reports, public.admin_close_report, public.expire_reports, public.report_figures to service_role;

insert into fishserve.migrations (name) values ('20261128000540_reports');
