"""Voice names that clients of other services send by default."""

OPENAI_VOICES = frozenset(
    ["alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar"]
)
"""Each means the default voice, unless a voice with that name exists."""
