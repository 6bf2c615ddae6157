"""Who is asking: sessions of Supabase, keys of fishserve, and the check that a person is one."""
