"""Texts on their way to speech: taken and paid for here, spoken elsewhere."""
