"""Which frames become sound when; and the decoder's passes as CUDA has them, run eagerly: the sound of the whole."""

from collections import defaultdict

import pytest
import torch

from inference.engine.vocoder import CAPTURED_FRAMES, FIRST_CHUNK, LARGEST_CHUNK, Passes, Vocoder, VocoderStream
from tests.inference.engine.eager_step import with_late_sound


@pytest.fixture
def passes(golden):
    with torch.inference_mode():
        yield Passes(golden.codec)


def spoken(seed, frames):
    return torch.randint(0, 1000, (8, frames), generator=torch.Generator().manual_seed(seed))


def test_streams_that_come_and_go_have_the_sound_of_the_whole(golden, passes):
    """The second joins when the first has begun, the third is alone at last and ends with a number of frames of its own."""
    codes = [spoken(0, 12), spoken(1, 8), spoken(2, 15)]
    streams, sound = [golden.codec.stream() for _ in codes], [[], [], []]
    for who, frames in (((0,), 4), ((0, 1, 2), 8), ((2,), 7)):
        starts = [sum(len(part) for part in sound[i]) // 2048 for i in who]
        now = torch.stack([codes[i][:, start : start + frames] for i, start in zip(who, starts, strict=True)])
        for i, wave in zip(who, passes.decode([streams[i] for i in who], now), strict=True):
            sound[i].append(wave)
    for parts, whole in zip(sound, codes, strict=True):
        torch.testing.assert_close(torch.cat(parts), golden.codec.decode(whole[None])[0], atol=1e-5, rtol=0)


def test_more_streams_than_a_pass_takes_are_several_passes(golden, passes, monkeypatch):
    monkeypatch.setattr("inference.engine.vocoder.CAPTURED_FRAMES", 2 * FIRST_CHUNK)
    codes = torch.stack([spoken(i, FIRST_CHUNK) for i in range(5)])
    waves = passes.decode([golden.codec.stream() for _ in codes], codes)
    torch.testing.assert_close(waves, golden.codec.decode(codes), atol=1e-5, rtol=0)


def test_a_pass_that_makes_other_sound_is_found_out_at_the_start(passes, monkeypatch):
    passes._passes[2, 4] = passes._pass(2, 4)
    passes.check()
    run = Passes._run
    monkeypatch.setattr(Passes, "_run", lambda self, p: (run(self, p)[0], p.pasts))  # one that forgets what it heard
    with pytest.raises(RuntimeError, match="graph of 2 streams and 4 frames: other sound"):
        passes.check()


def test_with_passes_or_without_the_same_is_heard(golden, passes):
    sound = []
    for own in (None, passes):
        vocoder = Vocoder(golden.codec)
        assert vocoder._passes is None  # nothing is captured on a CPU
        vocoder._passes = own
        streams = [VocoderStream(golden.codec) for _ in range(3)]
        for i, stream in enumerate(streams):
            stream.waiting += list(spoken(i, FIRST_CHUNK + i % 2).T.numpy())
            stream.ended = True
        waves = dict(vocoder.decode_due({stream: stream.next_frames(LARGEST_CHUNK) for stream in streams}))
        sound.append(torch.cat([torch.from_numpy(waves[s]) for s in streams]))
    torch.testing.assert_close(*sound, atol=1e-5, rtol=0)


@pytest.mark.parametrize("late", [False, True])
def test_passes_that_a_first_sound_would_wait_for_are_left_and_none_on_its_way_is_lost(golden, late):
    """Without graphs, a round ends with the pass that runs. With them, all start, and all that has landed is heard."""
    vocoder = with_late_sound(Vocoder(golden.codec)) if late else Vocoder(golden.codec)
    streams, heard = [VocoderStream(golden.codec) for _ in range(3)], []
    for i, stream in enumerate(streams):
        stream.waiting += list(spoken(i, FIRST_CHUNK).T.numpy())
    for n in range(10):
        due = {s: s.next_frames(LARGEST_CHUNK) for s in streams if s.due}
        found = [stream for stream, _ in vocoder.decode_due(due, lambda: True)]
        assert late or len(found) == (n < len(streams))
        heard += found
    assert len(heard) == len(streams) == len(set(heard))


def test_sound_that_lands_later_is_that_of_the_whole_and_streams_come_due_in_turn(golden):
    """Four streams begin together. Once their chunks are large, at most one of them comes due at a time."""
    vocoder, frames = with_late_sound(Vocoder(golden.codec)), 4 + 8 + 16 + 3 * LARGEST_CHUNK
    streams, sound = [VocoderStream(golden.codec) for _ in range(4)], defaultdict(list)
    due, fed = [], [spoken(i, frames) for i in range(4)]
    for n in range(frames + 60):
        for stream, codes in zip(streams, fed, strict=True):
            if n < frames:
                stream.waiting.append(codes[:, n].numpy())
            stream.ended = n >= frames - 1
        now = {s: s.next_frames(LARGEST_CHUNK) for s in streams if s.due} if vocoder.free else {}
        due.append(len(now))
        for stream, wave in vocoder.decode_due(now):
            sound[stream].append(torch.from_numpy(wave.copy()))
    assert not vocoder.flying
    assert (due[4 - 1], max(due[2 * LARGEST_CHUNK : frames - 1])) == (4, 1)
    for stream, codes in zip(streams, fed, strict=True):
        torch.testing.assert_close(torch.cat(sound[stream]), golden.codec.decode(codes[None])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("most", "expected"), [(LARGEST_CHUNK, [4, 8, 16, 32, 32, 8]), (8, [4] + 12 * [8])])
def test_chunks_grow_and_the_end_does_not_wait_for_one(golden, most, expected):
    """Nor does it when passes are small beside somebody's first sound: what has waited is due, then."""
    vocoder, stream, sizes = Vocoder(golden.codec), VocoderStream(golden.codec), []
    for n, code in enumerate(spoken(0, 100).T.numpy(), start=1):
        stream.waiting.append(code)
        stream.ended = n == 100
        while stream.due:
            sizes += [len(wave) // 2048 for _, wave in vocoder.decode_due({stream: stream.next_frames(most)})]
    assert sizes == expected
    assert not stream.due
    assert max(sizes) == most <= CAPTURED_FRAMES
