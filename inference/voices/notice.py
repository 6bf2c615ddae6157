"""The notice for users whose requested voice the model ignores."""

MINNOW = "minnow"
"""The bundled model, trained on one speaker; it imitates no other."""
ONE_VOICE = "minnow always speaks with its own voice; the requested voice was ignored"
VOICE_IGNORED = "X-Voice-Ignored"
"""The response header that carries this notice."""
