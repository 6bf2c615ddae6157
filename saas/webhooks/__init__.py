"""Customers' webhooks: they are told by HTTP of what happened to their jobs, voices and credits."""
