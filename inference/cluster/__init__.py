"""The server on many machines: the HTTP APIs and the engines as deployments of Ray Serve."""
