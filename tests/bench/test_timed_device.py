"""The engine on a device that takes time and makes nothing: requests come through, and the device is asked for what they need."""

from bench.timed_device import TimedEngine, run


def test_clients_are_served_and_the_device_is_busy(golden):
    engine = TimedEngine(golden, 2, queue=8)
    try:
        heard = run(engine, 3, 1.0)
    finally:
        engine.close()
    assert heard.firsts
    assert heard.seconds > 0
    assert min(engine.clock.busy.values()) > 0
