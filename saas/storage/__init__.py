"""Object storage for clips and results: one private bucket on R2, SeaweedFS or another S3 service."""
