"""Everything the SaaS layer needs, on one machine: PostgreSQL, a bucket, an engine."""
