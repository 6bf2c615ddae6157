"""The single server's tests of Fish Audio's WebSocket, unchanged, against a cluster."""

from tests.inference.server.test_fish_live import *  # noqa: F403 - its tests, with this folder's `minnow`
