"""The single server's tests of OpenAI's Realtime API, unchanged, against a cluster."""

from tests.inference.server.test_realtime import *  # noqa: F403 - its tests, with this folder's `minnow`
