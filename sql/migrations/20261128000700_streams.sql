-- A job whose client listens belongs to the process that streams it from its first moment: otherwise another claim, between its making and its stream's, had
-- it spoken into a file, and the client heard nothing until all of it was made.

create function public.request_speech(
  p_user_id uuid, p_idempotency_key text, p_fingerprint text, p_text text, p_token_hash text,
  p_voice_id uuid default null, p_options jsonb default '{}', p_api_key_id uuid default null, p_letters numeric default null, p_silence numeric default 0,
  p_lease_seconds numeric default 0
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_taken jsonb := public.process_audio_request(p_user_id, p_idempotency_key, p_fingerprint, p_text, p_token_hash, p_voice_id, p_options, p_api_key_id,
    p_letters, p_silence);
begin
  return v_taken || jsonb_build_object('claimed', case when p_lease_seconds > 0 and v_taken -> 'job' ->> 'status' in ('queued', 'running')
    then public.claim_job((v_taken -> 'job' ->> 'id')::uuid, p_lease_seconds) end);
end $$;

revoke execute on function public.request_speech from public, anon, authenticated;
grant execute on function public.request_speech to service_role;

insert into fishserve.migrations (name) values ('20261128000700_streams');
