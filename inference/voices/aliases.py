"""Voice names that clients of other services send by default."""

OPENAI_VOICES = frozenset(
    ["alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar"]
)
"""They mean the default voice, unless there is a voice of that name."""
