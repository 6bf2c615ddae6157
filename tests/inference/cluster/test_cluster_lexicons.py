"""The single server's tests of pronunciation dictionaries, unchanged, against a cluster."""

from tests.inference.server.test_elevenlabs_lexicons import *  # noqa: F403 - its tests, with this folder's `minnow`
