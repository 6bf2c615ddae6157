-- Closing an account: running jobs end and are refunded, all that is personal goes, and the ledger stays without a name on it.

-- {object_keys}: what the bucket is to delete, which is on the list of objects_to_delete, too. Closing twice is closing once.
create function public.close_account(p_user_id uuid) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_keys jsonb;
begin
  perform from public.payments where user_id = p_user_id order by reference for update; -- before the profile, as Stripe's events do
  perform fishserve.lock_profile(p_user_id);
  for v_id in select id from public.jobs where user_id = p_user_id and status in ('queued', 'running') loop
    perform public.refund_job(v_id, 'cancelled', 'the account was closed');
  end loop;
  select coalesce(jsonb_agg(object_key), '[]') into v_keys from (
    select object_key from public.jobs where user_id = p_user_id and object_key is not null
    union all select object_key from public.cloned_voices where user_id = p_user_id
  ) o;
  perform fishserve.give_up_object(object_key) from public.jobs where user_id = p_user_id;
  perform fishserve.erase_voice(id) from public.cloned_voices where user_id = p_user_id and status <> 'deleted';
  update public.jobs set text = null, options = '{}', error = null, sha256 = null, object_key = null, api_key_id = null,
    idempotency_key = id::text, fingerprint = '', deleted_at = coalesce(deleted_at, now()) where user_id = p_user_id;
  delete from public.api_keys where user_id = p_user_id;
  delete from public.usage where user_id = p_user_id;
  update public.payments set receipt_url = null where user_id = p_user_id;
  update public.profiles set email = null, display_name = null, stripe_customer = null, closed_at = coalesce(closed_at, now()) where id = p_user_id;
  delete from auth.users where id = p_user_id; -- the sign-in goes, too; the trigger below then closes what is closed already
  return jsonb_build_object('object_keys', v_keys);
end $$;

-- A user deleted in Supabase closes the account, or is not deleted: keys of an account without a user must not go on working.
create function fishserve.user_deleted() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  if exists (select from public.profiles where id = old.id) then perform public.close_account(old.id); end if;
  return null;
end $$;
create trigger fishserve_user_deleted after delete on auth.users for each row execute function fishserve.user_deleted();
create trigger fishserve_user_soft_deleted after update of deleted_at on auth.users for each row
  when (new.deleted_at is not null and old.deleted_at is null) execute function fishserve.user_deleted();

revoke execute on function public.close_account, fishserve.user_deleted from public, anon, authenticated;
grant execute on function public.close_account to service_role;

insert into fishserve.migrations (name) values ('20261125001100_accounts');
