"""The single server's tests of ElevenLabs' HTTP API, unchanged, against a cluster."""

from tests.inference.server.test_elevenlabs import *  # noqa: F403 - its tests, with this folder's `minnow`
