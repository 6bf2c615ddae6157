"""The single server's tests of Fish Audio's API, unchanged, against a cluster."""

from tests.inference.server.test_fish import *  # noqa: F403 - its tests, with this folder's `minnow`
