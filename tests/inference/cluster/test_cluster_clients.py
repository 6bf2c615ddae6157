"""The clients that people use, unchanged, against a cluster."""

from tests.inference.server.test_clients import *  # noqa: F403 - its tests, with this folder's `minnow`
