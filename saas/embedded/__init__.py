"""Everything the SaaS API needs, on one machine and with no account anywhere: a database, a bucket, an engine, a first user."""
