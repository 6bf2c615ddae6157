"""The notice for users whose requested voice the model hardly follows."""

MINNOW = "minnow"
"""The bundled model. Of a voice it follows the pitch and little else."""
PITCH_ONLY = "minnow follows the pitch of the requested voice and little else; FishSpeech 1.5 imitates it"
VOICE_NOTICE = "X-Voice-Notice"
"""The response header that carries this notice."""
