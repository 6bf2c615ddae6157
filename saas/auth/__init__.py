"""Authentication: Supabase sessions, API keys, and the CAPTCHA."""
