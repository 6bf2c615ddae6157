"""A siege's record says what each process held over time."""

from collections import Counter

from bench import process_memory
from bench.process_memory import MemoryOverTime
from bench.tables import tables

MB = 10**6


def told(*sizes):
    memory = MemoryOverTime(list)
    memory._samples = [Counter({"device": device * MB, "http": http * MB}) for device, http in sizes]
    return memory.told()


def test_each_third_has_its_least_and_most_and_the_rest_is_afterwards():
    sizes = [(100, 10), (120, 10), (110, 30), (130, 10), (110, 10), (140, 20), (105, 10)]
    assert told(*sizes) == {
        "all": {"start": 110, "least": [110, 140, 120], "most": [130, 140, 160], "after": 115},
        "device": {"start": 100, "least": [100, 110, 110], "most": [120, 130, 140], "after": 105},
        "http": {"start": 10, "least": [10, 10, 10], "most": [10, 30, 20], "after": 10},
    }


def test_too_few_samples_tell_nothing():
    assert told() == told((1, 1)) == told(*[(1, 1)] * 3) == {}
    assert told(*[(1, 1)] * 4)


def test_the_report_shows_memory_by_process():
    siege = {
        "attackers": 8, "answers": {"200": 3}, "first_audio_p50": 0.05, "first_audio_p95": 0.1, "health_p99": 0.01, "health_longest": 0.2,
        "memory_mb": {"before": 1, "peak": 3, "after": 2},
    }  # fmt: skip
    by_process = {"memory_by_process_mb": told(*[(100, 10), (120, 10), (130, 10), (105, 10)])}
    before, after = ([t.title for t in tables({"command": "attack", "runs": [run]})] for run in (siege, siege | by_process))
    assert before == ["ordinary clients"]
    assert after == ["ordinary clients", "memory by process, MB"]
    *_, table = tables({"command": "attack", "runs": [siege | by_process]})
    assert table.rows[1] == ["8 attackers", "device", "100", "100 to 100", "120 to 120", "130 to 130", "105"]


def test_a_process_that_started_later_comes_later_whatever_its_number(monkeypatch):
    """After their largest, numbers of processes begin again at small ones."""
    parent, manager, http = 32_001, 32_767, 301
    files = {parent: ("1", 5), manager: (str(parent), 9), http: (str(parent), 700)}
    stat = "{} (fishserve (x)) S {} " + "0 " * 17 + "{} 0"
    words = {
        pid: {"status": f"PPid:\t{of}", "stat": stat.format(pid, of, ticks), "cmdline": "fishserve"} for pid, (of, ticks) in files.items()
    }
    monkeypatch.setattr(process_memory, "_read", lambda pid, name: words[pid][name])
    assert process_memory.named(list(files)) == {parent: "parent", manager: "manager", http: "http"}
