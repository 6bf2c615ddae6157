"""Credits for money, by Stripe."""
