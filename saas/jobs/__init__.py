"""Speech jobs: accepted and charged here, synthesized by a backend."""
