"""Sign-in for embedded mode, without Supabase."""
