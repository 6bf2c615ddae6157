"""One way after the other to capture graphs, and what is said of the one that worked."""

import torch

from inference.engine import metrics
from inference.engine.captured import Captured, capture_first

CUDA = torch.device("cuda")


def ways(*problems):
    """Ways that fail with these problems, in order; None: that works."""

    def way(number, problem):
        def capture():
            if problem:
                raise RuntimeError(problem)
            return number

        return (("graphs", "graphs without overlap")[number], capture)

    return [way(*numbered) for numbered in enumerate(problems)]


def test_the_first_way_that_works_is_taken_and_named_with_the_reason(caplog):
    cleaned = []
    first = capture_first("frames", "they are slow", CUDA, ways(None, "never tried"), lambda: cleaned.append(1))
    assert (first, first.fastest, cleaned, metrics.GRAPHS.labels("frames")._value.get()) == (Captured(0, "graphs"), True, [], 1)
    second = capture_first("frames", "they are slow", CUDA, ways("not supported", None), lambda: cleaned.append(1))
    assert second == Captured(1, "graphs without overlap; graphs failed: RuntimeError: not supported")
    assert (second.fastest, cleaned) == (False, [1])
    assert caplog.messages == ["frames: graphs failed: RuntimeError: not supported"]


def test_where_none_works_everybody_is_told(caplog):
    none = capture_first("codec", "decoding is slow", CUDA, ways("no driver", "no driver"), lambda: None)
    assert none == Captured(None, "eager; graphs failed: RuntimeError: no driver; graphs without overlap failed: RuntimeError: no driver")
    assert caplog.messages[-1] == "codec: CUDA graphs are not used, so that decoding is slow"
    assert metrics.GRAPHS.labels("codec")._value.get() == 0


def test_a_cpu_has_none_and_that_is_no_fault(caplog):
    assert capture_first("frames", "", torch.device("cpu"), ways(None), lambda: None) == Captured(None, "eager: graphs are for CUDA")
    assert caplog.messages == []
