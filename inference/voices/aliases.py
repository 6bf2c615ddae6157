"""Names that clients of other services send for a voice without being asked to."""

OPENAI_VOICES = frozenset(
    ["alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar"]
)
"""They mean the default voice, unless there is a voice of that name."""
