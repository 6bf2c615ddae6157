"""The RunPod Serverless worker."""
