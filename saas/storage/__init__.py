"""Where clips and results lie: one private bucket of an S3 service, R2 or SeaweedFS."""
