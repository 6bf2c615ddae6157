"""The SaaS plugin: sign-in, credits, storage, dispatch. Never imports torch."""
