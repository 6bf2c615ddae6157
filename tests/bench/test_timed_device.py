"""The engine on a device that takes time and makes nothing: requests come through, and the device is asked for what they need."""

from bench.record import recording
from bench.tables import tables
from bench.timed_device import TimedEngine, measure, run


def test_clients_are_served_and_the_device_is_busy(golden):
    engine = TimedEngine(golden, 2, queue=1000)
    try:
        heard = run(engine, 3, 0.5)
        while not heard.firsts:  # on a busy machine
            heard = run(engine, 3, 0.5)
    finally:
        engine.close()
    assert heard.firsts
    assert heard.seconds > 0
    assert min(engine.clock.busy.values()) > 0


def test_a_run_is_a_record_with_a_table(golden, tmp_path):
    with recording(tmp_path / "run.json", "timed-device", {}, {}) as record:
        measure(golden, [1, 2], 2, 0.5, record)
    (table,) = tables(record.body)
    assert [line[0] for line in table.rows] == ["1 client", "2 clients"]
