"""Rate limits per user, key and address."""
