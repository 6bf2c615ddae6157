-- Plans at the desk: an operator gives a user one, and sees all there are.

-- The user's plan, until a subscription begins, changes or ends: {plan, before, action}.
create function public.admin_set_plan(p_actor text, p_reason text, p_user_id uuid, p_plan text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_before text := (fishserve.account_at_desk(p_user_id)).plan;
begin
  if v_before = p_plan then raise sqlstate 'PT409' using message = format('the account %s has the plan %s', p_user_id, p_plan); end if;
  perform public.set_plan(p_user_id, p_plan);
  return jsonb_build_object('plan', p_plan, 'before', v_before, 'action',
    fishserve.record_action(p_actor, 'set plan', p_user_id::text, p_user_id, p_reason, jsonb_build_object('plan', p_plan, 'before', v_before)));
end $$;

-- {prices, packs, plans}: every price that ever was, the newest first, and all packs and plans.
create or replace function public.admin_prices() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('prices', (select coalesce(jsonb_agg(to_jsonb(p) order by p.id desc), '[]') from public.prices p),
    'packs', (select coalesce(jsonb_agg(to_jsonb(k) order by k.active desc, k.amount_cents), '[]') from public.packs k),
    'plans', (select coalesce(jsonb_agg(to_jsonb(n) order by n.amount_cents nulls first, n.id), '[]') from public.plans n))
$$;

revoke execute on function public.admin_set_plan from public, anon, authenticated;
grant execute on function public.admin_set_plan to service_role;

insert into fishserve.migrations (name) values ('20261128000100_desk_plans');
