"""Health, metrics, logs and error reports for operators; none of them holds what a user said."""
