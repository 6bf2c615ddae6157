"""What every HTTP API here shares: request log, limits, error bodies, metrics page, API keys. Knows no model, engine or route."""
