"""All services of the SaaS API on one machine, without external accounts: database, bucket, engine, a first user."""
