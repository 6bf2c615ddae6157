"""An engine that hangs is given up after so many looks in a row, and not sooner."""

from types import SimpleNamespace

from inference.engine.watchdog import GIVE_UP_LOOKS, Watchdog


def test_it_gives_up_after_many_looks_in_a_row():
    engine = SimpleNamespace(hangs=True)
    watchdog = Watchdog(engine)
    assert all(watchdog.look() for _ in range(GIVE_UP_LOOKS - 1))
    engine.hangs = False
    assert not watchdog.look()
    engine.hangs = True
    for _ in range(GIVE_UP_LOOKS):
        assert not watchdog.gave_up
        watchdog.look()
    assert watchdog.gave_up
