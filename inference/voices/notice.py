"""The notice for users whose requested voice the model ignores."""

MINNOW = "minnow"
"""The bundled model, which was trained on one speaker and imitates no other."""
ONE_VOICE = "minnow always speaks with its own voice; the requested voice was ignored"
VOICE_IGNORED = "X-Voice-Ignored"
"""The header of a reply that says so."""
