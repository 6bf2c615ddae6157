"""The single server's tests of the guard against bad takes, unchanged, against a cluster."""

from tests.inference.server.test_quality_guard import *  # noqa: F403 - its tests, with this folder's `minnow`
