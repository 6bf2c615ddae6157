"""Python's collector rests while large packages are imported, and then does as before."""

import gc

import pytest

from inference.importing import without_collector


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_rests_in_the_block_alone(before):
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(ModuleNotFoundError), without_collector():
            seen = gc.isenabled()
            raise ModuleNotFoundError
        assert (seen, gc.isenabled()) == (False, before)
    finally:
        (gc.enable if was else gc.disable)()
