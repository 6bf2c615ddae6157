-- What things cost: the price of a second of speech, the packs of credits for sale, and the few settings of money and storage.
-- Credits are whole numbers. Edited by the operator in SQL; clients may read what is for sale.

create table public.prices (
  id bigint generated always as identity primary key,
  name text not null,
  credits_per_second numeric not null check (credits_per_second >= 0),
  minimum bigint not null check (minimum >= 0),
  characters_per_second numeric not null check (characters_per_second > 0), -- how fast speech goes, for the estimate
  active boolean not null default false,
  created_at timestamptz not null default now()
);
create unique index prices_one_active on public.prices (active) where active;
insert into public.prices (name, credits_per_second, minimum, characters_per_second, active) values ('standard', 10, 10, 13, true);

create table public.packs (
  id text primary key,
  credits bigint not null check (credits > 0),
  amount_cents bigint not null check (amount_cents > 0),
  currency text not null default 'usd' check (currency ~ '^[a-z]{3}$'),
  active boolean not null default true
);
insert into public.packs (id, credits, amount_cents) values ('small', 10000, 500), ('medium', 50000, 2000), ('large', 250000, 8000);

create table public.settings (
  only_row boolean primary key default true check (only_row),
  grant_on_sign_up bigint not null default 0 check (grant_on_sign_up >= 0),
  result_days integer not null default 7 check (result_days > 0) -- how long a result is kept
);
insert into public.settings default values;

alter table public.prices enable row level security;
alter table public.packs enable row level security;
alter table public.settings enable row level security;
revoke all on public.prices, public.packs, public.settings from anon, authenticated, service_role;
create policy "anyone reads the price" on public.prices for select to anon, authenticated using (active);
create policy "anyone reads what is for sale" on public.packs for select to anon, authenticated using (active);
create policy "the service reads and changes settings" on public.settings for all to service_role using (true) with check (true);
grant select on public.prices, public.packs to anon, authenticated;
grant select, insert, update on public.prices, public.packs to service_role;
grant select, update on public.settings to service_role;

create function public.list_packs() returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(p) order by p.amount_cents), '[]') from public.packs p where p.active
$$;

-- How long a text takes to say, a quarter more than on average. A character of Chinese, Japanese or Korean takes as long as three letters.
create function fishserve.speech_seconds(p_text text, p_speed numeric, p_characters_per_second numeric) returns numeric
language sql immutable set search_path = '' as $$
  select 1.25 * (char_length(p_text) + 2 * char_length(regexp_replace(p_text, '[^\u1100-\u11FF\u3040-\u30FF\u3400-\u9FFF\uAC00-\uD7AF]+', '', 'g')))
    / p_characters_per_second / p_speed
$$;

create function fishserve.credits(p_seconds numeric, p_price public.prices) returns bigint
language sql immutable set search_path = '' as $$
  select greatest(p_price.minimum, ceil(p_seconds * p_price.credits_per_second)::bigint)
$$;

create function fishserve.active_price() returns public.prices
language plpgsql stable set search_path = '' as $$
declare
  v_price public.prices;
begin
  select * into v_price from public.prices where active;
  if not found then raise sqlstate 'PT403' using message = 'nothing is for sale: no price is active in the table prices'; end if;
  return v_price;
end $$;

-- What a request to speak this would reserve: {credits, characters, seconds}.
create function public.estimate_credits(p_text text, p_speed numeric default 1) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  v_price public.prices := fishserve.active_price();
  v_seconds numeric;
begin
  if coalesce(p_speed, 1) not between 0.1 and 10 then raise sqlstate 'PT422' using message = format('the speed is %s; it may be 0.1 to 10', p_speed); end if;
  v_seconds := fishserve.speech_seconds(coalesce(p_text, ''), coalesce(p_speed, 1), v_price.characters_per_second);
  return jsonb_build_object('credits', fishserve.credits(v_seconds, v_price), 'characters', char_length(coalesce(p_text, '')), 'seconds', round(v_seconds, 1));
end $$;

revoke execute on function public.list_packs, public.estimate_credits, fishserve.speech_seconds, fishserve.credits, fishserve.active_price
  from public, anon, authenticated;
grant execute on function public.list_packs, public.estimate_credits to service_role;

insert into fishserve.migrations (name) values ('20261125000200_prices');
