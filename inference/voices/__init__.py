"""Named voices, on disk or in an S3 bucket."""
