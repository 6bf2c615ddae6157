"""The single server's tests of the HTTP APIs and WebSockets, unchanged, against a cluster."""

from tests.inference.server.test_elevenlabs_live import *  # noqa: F403 - their tests, with this folder's `minnow`
from tests.inference.server.test_fish import *  # noqa: F403
from tests.inference.server.test_fish_live import *  # noqa: F403
