"""Texts whose speech lasts, on a fast machine, too."""

SENTENCE = "This is a sentence that takes a while."
LONG = " ".join([SENTENCE] * 40)
"""A second of work for the tiny model: for speech that a test waits for."""
ENDLESS = " ".join([SENTENCE] * 2000)
"""A minute of work or more: for speech that a test must find running, and ends. Close to the most that one request may have."""
