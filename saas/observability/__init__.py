"""What an operator sees: health, metrics, logs and error reports, none of which holds what a user said."""
