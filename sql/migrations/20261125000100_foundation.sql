-- The schema that nobody but the owner may look into: helpers of the public functions, and which migrations are in.
-- Each migration ends by writing its own name here, whichever tool applied it; applying one twice therefore fails before it changes anything.
-- Nothing here needs an extension. A refusal is `raise sqlstate 'PT4xx'`: PostgREST answers it as HTTP 4xx with the message.

create schema fishserve;
revoke all on schema fishserve from public;

create table fishserve.migrations (
  name text primary key,
  applied_at timestamptz not null default now()
);
alter table fishserve.migrations enable row level security;
create policy "the owner alone" on fishserve.migrations for select using (false);

insert into fishserve.migrations (name) values ('20261125000100_foundation');
