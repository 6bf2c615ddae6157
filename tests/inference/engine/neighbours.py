"""Requests that run beside the one that is looked at."""

import queue

from inference import SpeechRequest


def ignore(item):
    del item


def codes_among_others(engine, request, others):
    """The codes of a request that begins while `others` run, who end one after the other and make room for as many more."""
    ended = queue.SimpleQueue()

    def submit(text, seed, frames, deliver):
        return engine.submit(SpeechRequest(text, seed=seed, max_new_tokens=frames), deliver, audio=False)

    early = [submit("Neighbours say more than you do. " * (1 + i % 3), i, 9 + 8 * i, ignore) for i in range(others)]
    mine = engine.submit(request, ended.put, audio=False)
    late = [submit("One who joins later.", 100 + i, 5 + 11 * i, ignore) for i in range(others)]
    assert ended.get() is None
    for ticket in (*early, *late):
        ticket.cancel()
    return mine.codes
