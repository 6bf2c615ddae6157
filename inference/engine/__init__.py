"""Many requests at once through one model."""
