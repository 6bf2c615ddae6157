"""The single server's tests of texts with several voices, unchanged, against a cluster."""

from tests.inference.server.test_dialogue_doors import *  # noqa: F403 - its tests, with this folder's `minnow`
