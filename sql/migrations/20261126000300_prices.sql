-- A price is never changed: jobs that were sold at it are charged by it. Another price is another row, which set_price adds.

create function fishserve.keep_prices() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op <> 'UPDATE' or to_jsonb(new) - 'active' <> to_jsonb(old) - 'active' then
    raise exception 'a price is kept as it was sold: add another one with select public.set_price(12)';
  end if;
  return new;
end $$;
create trigger keep_prices before update or delete on public.prices for each row execute function fishserve.keep_prices();
create trigger keep_all_prices before truncate on public.prices for each statement execute function fishserve.keep_prices();

-- The price of what is sold from now on: the price row. What is null stays as it is in the active price.
create function public.set_price(p_credits_per_second numeric, p_minimum bigint default null, p_characters_per_second numeric default null, p_name text default null)
returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_old public.prices;
  v_new public.prices;
begin
  if p_credits_per_second is null or not p_credits_per_second between 0 and 1000000 then
    raise sqlstate 'PT422' using message = format('a second costs 0 to 1,000,000 credits, not %s', coalesce(p_credits_per_second::text, 'null'));
  end if;
  if p_minimum < 0 or p_characters_per_second <= 0 then
    raise sqlstate 'PT422' using message = format('the minimum is %s and a second has %s characters; neither may be less than 0', p_minimum, p_characters_per_second);
  end if;
  lock table public.prices in share row exclusive mode; -- two prices are set one after the other
  update public.prices set active = false where active returning * into v_old;
  insert into public.prices (name, credits_per_second, minimum, characters_per_second, active) values (
    coalesce(p_name, v_old.name, 'standard'), p_credits_per_second, coalesce(p_minimum, v_old.minimum, 0), coalesce(p_characters_per_second, v_old.characters_per_second, 13), true)
    returning * into v_new;
  return to_jsonb(v_new);
end $$;

revoke insert, update on public.prices from service_role;
revoke execute on all functions in schema fishserve from public;
revoke execute on function public.set_price from public, anon, authenticated;
grant execute on function public.set_price to service_role;

insert into fishserve.migrations (name) values ('20261126000300_prices');
