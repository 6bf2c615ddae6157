"""Traces of this process: what is handed on, and what a receiver that does not answer costs."""

import sys
import time

import pytest

from inference import SpeechRequest, tracing
from tests.otlp import PARENT, TRACE, TRACEPARENT, Receiver, receiver  # noqa: F401 - a fixture
from tests.waiting import HANG_SECONDS


def test_without_a_receiver_nothing_is_handed_on():
    tracing.start()
    assert SpeechRequest("Hello.").traceparent == ""
    with tracing.call("somewhere") as headers:
        assert headers == {}
    tracing.stop()


def test_the_stages_of_a_request_hang_from_the_span_that_it_names(receiver, engine):  # noqa: F811
    began = time.time_ns()
    engine.synthesize(SpeechRequest("Hello.", max_new_tokens=5, traceparent=TRACEPARENT))
    found = receiver.of(TRACE, 4)
    queue, prefill, frame, vocoder = (found[name] for name in ("queue", "prefill", "first frame", "vocoder"))
    assert {span.parent for span in found.values()} == {PARENT}
    assert (queue.ended, prefill.ended, frame.ended) == (prefill.began, frame.began, vocoder.began)
    assert queue.began <= prefill.began < frame.began <= vocoder.began < vocoder.ended
    assert began - 1e9 < queue.began < vocoder.ended < time.time_ns() + 1e9  # the two clocks of a machine are not read at once
    assert queue.resource["service.name"] == "fishserve"


def test_a_request_that_never_sounds_has_the_stages_it_came_to(receiver, engine):  # noqa: F811
    with engine.stream(SpeechRequest("Hello there. " * 20, traceparent=TRACEPARENT)) as stream:
        stream.cancel()
        list(stream)
    assert set(receiver.of(TRACE, 1)) <= {"queue", "prefill", "first frame"}


@pytest.mark.parametrize("sent", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 2000])
@pytest.mark.usefixtures("receiver")
def test_a_parent_that_is_none_harms_nothing(engine, sent):
    assert engine.synthesize(SpeechRequest("Hello.", max_new_tokens=3, traceparent=sent)).samples.size


def test_a_call_belongs_to_no_request_or_to_the_one_that_makes_it(receiver):  # noqa: F811
    with pytest.raises(KeyError), tracing.call("there", **{"fishserve.job": "a job"}) as headers:
        raise KeyError("a private text")
    _, trace, span, flags = headers["traceparent"].split("-")
    sent = receiver.of(trace, 1)["there"]
    assert (sent.id, sent.parent, int(flags, 16) & 1, sent.kind, sent.error) == (span, "", 1, 3, True)
    assert sent.attributes == {"fishserve.job": "a job", "error.type": "KeyError"}
    assert not any(b"private" in body for body in receiver.bodies)


def test_a_receiver_that_hangs_costs_a_bounded_queue_and_no_time(monkeypatch, caplog):
    receiver = Receiver()  # noqa: F811
    receiver.open.clear()
    for name, value in {
        tracing.ENDPOINT: receiver.url, "OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4", "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tracing, "END_SECONDS", 0.01)
    tracing.start()
    now = time.monotonic()
    for _ in range(1000):  # each would wait for the receiver, if it waited
        tracing.record_stages(TRACEPARENT, [("queue", now, now)])
    waiting = tracing._provider._active_span_processor._span_processors[0]._batch_processor
    assert len(waiting._queue) <= 8
    tracing.stop()
    receiver.close()
    waiting._worker_thread.join(HANG_SECONDS)
    assert len(receiver.spans) <= 3 * 8
    assert caplog.text.count("takes no traces") <= 1


def test_a_variable_that_cannot_be_used_is_a_warning(monkeypatch, caplog):
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "3")
    tracing.start()
    assert "no traces are sent: a variable OTEL_... cannot be used: max_export_batch_size must be" in caplog.text
    assert tracing._tracer is None


def test_a_receiver_that_is_named_without_the_packages_is_a_warning(monkeypatch, caplog):
    monkeypatch.setenv(tracing.ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    tracing.start()
    assert "no traces are sent: OTEL_EXPORTER_OTLP_ENDPOINT is set, which needs the package opentelemetry" in caplog.text
    assert "[otel]" in caplog.text
    assert tracing.traceparent() == ""
