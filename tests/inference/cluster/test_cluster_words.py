"""The single server's tests of word times, unchanged, against a cluster."""

from tests.inference.server.test_word_times import *  # noqa: F403 - its tests, with this folder's `minnow`
