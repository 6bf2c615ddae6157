"""The model of a cluster agrees with what can be said of it by hand."""

import numpy as np
import pytest

from bench.fleet import FIRST_FRAMES, FRAMES_PER_SECOND, Fleet, Mix, Service, fitted, simulate, speed

SERVICE = Service(base=0.01, each=0.001, start=0.02, prefill=0.1)


def test_a_lone_request_takes_its_prompt_its_start_and_its_frames():
    outcome = simulate(Fleet(1, slots=1, cached=1), Mix(rate=0.001, voices=1), SERVICE, 50_000)
    assert outcome.hit_rate == 1  # the only voice was computed while nothing was counted
    assert outcome.first == pytest.approx([SERVICE.start + FIRST_FRAMES * SERVICE.step(1)] * len(outcome.first))


def test_every_request_is_heard_or_refused_and_a_full_cluster_makes_what_it_can():
    mix = Mix(rate=100, voices=10)
    outcome = simulate(Fleet(2, slots=4, queue=2), mix, SERVICE, 100)
    assert outcome.refused
    made = len(outcome.first) * mix.audio / 90
    assert made == pytest.approx(2 * speed(SERVICE, 4), rel=0.15)


def test_routing_by_voice_finds_more_prompts_and_no_replica_is_overrun():
    found = {
        r: simulate(Fleet(10, cached=20, routing=r), Mix(rate=20, voices=1000), SERVICE, 60)
        for r in ("voice", "least_loaded", "round_robin")
    }
    assert found["voice"].hit_rate > 1.3 * max(found["least_loaded"].hit_rate, found["round_robin"].hit_rate)
    assert not any(outcome.refused for outcome in found.values())


def test_autoscaling_hears_a_burst_that_a_fixed_number_refuses():
    mix = Mix(rate=0.9 * 4 * speed(SERVICE, 8) / Mix.audio, voices=10, shape=lambda t: 1 + (t > 100))
    fixed = simulate(Fleet(4, most=4), mix, SERVICE, 200)
    scaled = simulate(Fleet(4, most=10, cold=5), mix, SERVICE, 200)
    assert len(scaled.refused) < len(fixed.refused) / 3
    assert scaled.replica_seconds > fixed.replica_seconds


def test_replicas_that_are_not_needed_end_after_their_streams():
    mix = Mix(rate=0.9 * 4 * speed(SERVICE, 8) / Mix.audio, voices=10, shape=lambda t: 0.1 if t > 60 else 1.0)
    outcome = simulate(Fleet(1, most=6, cold=1), mix, SERVICE, 600)
    assert max(outcome.sizes) >= 4
    assert outcome.sizes[-1] <= 2  # a few requests at once may want a second one


def test_clients_ask_again_when_they_have_heard_all():
    outcome = simulate(Fleet(1, slots=2), Mix(clients=1, lengths=(1,), voices=1), SERVICE, 100, warm=0)
    each = SERVICE.start + FRAMES_PER_SECOND * SERVICE.step(1)
    assert len(outcome.first) == pytest.approx(100 / each, abs=1)


def test_replicas_of_one_machine_slow_each_other_down():
    mix = Mix(clients=2, lengths=(6,), voices=2)
    alone, shared = (simulate(Fleet(2, routing="round_robin", share=share), mix, SERVICE, 100) for share in (0.5, 1.0))
    assert len(shared.first) == pytest.approx(len(alone.first) / 2, rel=0.05)


def test_caches_that_earlier_requests_filled_need_no_warming_up():
    fleet, mix = Fleet(10, cached=20), Mix(rate=20, voices=1000)
    cold, filled, later = (
        simulate(fleet, mix, SERVICE, s, warm=w, filled=f).hit_rate for s, w, f in ((20, 0, 0), (20, 0, 1), (200, 0.5, 0))
    )
    assert cold < 0.8 * later
    assert filled == pytest.approx(later, abs=0.05)


def test_the_same_seed_gives_the_same_run():
    runs = [simulate(Fleet(3), Mix(rate=5), SERVICE, 30, seed=7).first for _ in range(2)]
    assert runs[0] == runs[1]


def record(*levels):
    """Closed loops whose streams take `base + each * clients` seconds a frame."""
    runs = []
    for clients in levels:
        step = SERVICE.step(clients)
        times = [0.02 + 4 * step + 4 * step * i for i in range(5)]
        sample = {"due": 0.0, "times": times, "durations": [4 / FRAMES_PER_SECOND] * 5, "ended": times[-1]}
        runs.append({"loop": "closed", "clients": clients, "samples": [sample] * 3})
    return {"runs": runs}


def test_service_times_are_read_from_a_record():
    assert np.array(list(vars(fitted(record(1, 4, 8), 0.1)).values())) == pytest.approx(list(vars(SERVICE).values()), rel=1e-6)
    with pytest.raises(ValueError, match="fewer than two"):
        fitted(record(1), 0.1)
