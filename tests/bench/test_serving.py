import asyncio
import statistics
from contextlib import nullcontext

import pytest

from bench.prompts import prompts
from bench.record import Record, facts, read
from bench.serving import RATE_STEP, Objective, closed_levels, one_client_rate, open_levels, own_cost, warm_up
from bench.tables import _sustained
from inference.errors import GenerationError


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path / "a.json", "throughput", {}, facts(None))


def step(_name, _seconds):
    return nullcontext()


class Server:
    """Answers one request at a time, each in 20 ms."""

    def __init__(self):
        self.turn = asyncio.Lock()

    async def __call__(self, _, heard):
        async with self.turn:
            await asyncio.sleep(0.02)
            heard(0.1)


def test_the_rate_is_raised_until_the_objective_breaks(record, clock):
    """Fifty requests a second are all it can do: below, each is heard at once; above, the queue grows as long as the level lasts."""

    async def main():
        await open_levels(Server(), prompts(), 20, 0.8, Objective(0.25), record, step)

    clock.run(main())
    found = [(run["rate"], run["met"]) for run in read(record.path)["runs"]]
    assert [met for _, met in found] == [True] * (len(found) - 1) + [False]
    assert found[1][0] == 20 * RATE_STEP
    assert 30 < found[-1][0] <= 160


def test_a_rate_at_which_nobody_came_is_no_verdict(record, monkeypatch):
    """A poisson process may bring nobody in a few seconds."""
    monkeypatch.setattr("bench.serving.poisson", lambda *_, **__: [])
    monkeypatch.setattr("bench.serving.MAX_RATES", 2)
    asyncio.run(open_levels(Server(), prompts(), 0.04, 0.01, Objective(), record, step))
    body = read(record.path)
    assert [run["met"] for run in body["runs"]] == [None, None]
    assert "met up to" not in _sustained(body)
    assert "no request arrived" in _sustained(body)
    assert "no rate tried" in _sustained({"runs": [{"met": None, "rate": 1}, {"met": False, "rate": 2}]})
    assert "met up to 1.00" in _sustained({"runs": [{"met": True, "rate": 1}, {"met": None, "rate": 2}]})


def test_levels_are_apart_and_so_is_the_warm_up(record, clock):
    async def main():
        server, texts = Server(), prompts()
        await warm_up(server, texts, 3, record, step)
        await closed_levels(server, texts, [1, 2], 0.3, record, step)

    clock.run(main())
    body = read(record.path)
    assert len(body["warmup"]) == 3
    assert [run["clients"] for run in body["runs"]] == [1, 2]
    assert all(run["window"] == 0.3 and len(run["samples"]) >= 15 for run in body["runs"])
    assert one_client_rate(record) == pytest.approx(50)


def test_a_target_that_answers_nobody_is_not_measured(record):
    async def broken(*_):
        raise GenerationError("no")

    with pytest.raises(GenerationError, match="no request of the warm-up was answered: no"):
        asyncio.run(warm_up(broken, prompts(), 2, record, step))


def test_the_generators_own_cost_is_that_of_a_target_that_has_this_one(clock):
    async def in_a_millisecond(_, heard):
        await asyncio.sleep(0.001)
        heard(1.0)

    own = clock.run(own_cost(in_a_millisecond, 2))
    assert own["requests_per_second"] == pytest.approx(2000, rel=0.01)
    assert statistics.median(own["first_audio"]) == pytest.approx(0.001)
