"""The single server's tests of ElevenLabs' WebSockets, unchanged, against a cluster."""

from tests.inference.server.test_elevenlabs_live import *  # noqa: F403 - its tests, with this folder's `minnow`
