import io
import wave

import av
import numpy as np
import psutil
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import RequestError
from inference.audio.encode import FORMATS, NATIVE_RATE, Encoder
from tests.waiting import wait

RATES = [(kind, rate) for kind, f in FORMATS.items() for rate in (None, *(f.rates or (8000, 24_000, 48_000)))]


def tone(seconds, hertz=440):
    """A tone that is loudest in its last tenth of a second, to see whether the tail is there."""
    t = np.arange(int(seconds * NATIVE_RATE)) / NATIVE_RATE
    return (np.sin(2 * np.pi * hertz * t) * np.where(t > seconds - 0.1, 0.8, 0.2)).astype(np.float32)


def encoded(kind, samples, chunks=8192, **options):
    encoder = Encoder(kind, **options)
    parts = [encoder.encode(samples[i : i + chunks]) for i in range(0, len(samples), chunks)] + [encoder.finish()]
    return parts, encoder.sample_rate


def decoded(kind, content, rate):
    if kind == "pcm":
        return np.frombuffer(content, "<i2").astype(np.float32) / 32768, rate
    if kind in ("ulaw", "alaw"):  # no header says what they are
        return soundfile.read(io.BytesIO(content), format="RAW", subtype=kind.upper(), samplerate=rate, channels=1, dtype="float32")
    with av.open(io.BytesIO(content)) as container:
        frames, resampler = [], av.AudioResampler("flt", "mono")
        for frame in container.decode(audio=0):
            frames += [f.to_ndarray()[0] for f in resampler.resample(frame)]
        return np.concatenate(frames), container.streams.audio[0].rate


@pytest.mark.parametrize(("kind", "rate"), RATES, ids=str)
def test_every_format_is_as_long_as_the_sound_and_keeps_its_tail(kind, rate):
    parts, chosen = encoded(kind, tone(1.3), sample_rate=rate)
    heard, heard_rate = decoded(kind, b"".join(parts), chosen)
    assert chosen == (rate or chosen)
    assert heard_rate == chosen or kind == "opus"  # Opus always decodes at 48 kHz
    assert abs(len(heard) / heard_rate - 1.3) < 0.075  # an MP3 has up to 2,257 samples more
    start = int((1.3 - 0.08) * heard_rate)
    assert np.abs(heard[start : start + int(0.06 * heard_rate)]).max() > 0.5


@pytest.mark.parametrize("speed", [0.5, 1, 2])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_encoded_can_be_heard_before_the_next_chunk_comes(kind, speed):
    encoder, sound, sent, fed = Encoder(kind, speed=speed), tone(3), b"", 0
    for frames in (4, 8, 16, 32):
        sent += encoder.encode(sound[fed : fed + 2048 * frames])
        fed += 2048 * frames
        if fed / speed > NATIVE_RATE / 2:
            heard, rate = decoded(kind, sent, encoder.sample_rate)
            assert fed / NATIVE_RATE / speed - len(heard) / rate < 0.3


@given(st.sampled_from(sorted(FORMATS)), st.lists(st.integers(0, 9000), max_size=6), st.sampled_from([0.25, 0.7, 1.0, 1.5, 4.0]))
@settings(max_examples=40)
def test_any_chunks_make_a_file_of_the_right_length(kind, sizes, speed):
    encoder, sound = Encoder(kind, speed=speed), tone(2)
    content, at = b"", 0
    for size in sizes:
        content += encoder.encode(sound[at : at + size])
        at += size
    content += encoder.finish()
    if kind != "wav" or at > 10:  # a WAV without sound has nothing to decode
        heard, rate = decoded(kind, content, encoder.sample_rate)
        assert abs(len(heard) / rate - min(at, len(sound)) / NATIVE_RATE / speed) < 0.06


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 2.0, 4.0])
def test_speed_changes_the_length_and_not_the_pitch(speed):
    parts, rate = encoded("pcm", tone(2), speed=speed)
    heard, _ = decoded("pcm", b"".join(parts), rate)
    assert len(heard) == round(2 * rate / speed)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert abs(np.fft.rfftfreq(len(heard), 1 / rate)[spectrum.argmax()] - 440) < 5


def test_what_a_format_cannot_have_is_refused_by_name():
    with pytest.raises(RequestError, match="sample_rate is 44100; opus can have 8000, 12000, 16000, 24000, 48000"):
        Encoder("opus", 44_100)
    with pytest.raises(RequestError, match="sample_rate is 1; wav can have 8000 to 48000"):
        Encoder("wav", 1)
    with pytest.raises(RequestError, match=r"speed is 5; it must be between 0\.25 and 4\.0"):
        Encoder("mp3", speed=5)


@pytest.mark.parametrize("rate", [None, 8000])
@pytest.mark.parametrize("speed", [1, 2])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_file_says_how_long_it_is(kind, speed, rate):
    if rate and FORMATS[kind].rates and rate not in FORMATS[kind].rates:
        pytest.skip("this format cannot have it")
    encoder = Encoder(kind, rate, speed)
    streamed = encoder.encode(tone(1.5)) + encoder.finish()
    whole = encoder.with_true_sizes(streamed)
    assert len(whole) == len(streamed)
    assert np.array_equal(decoded(kind, whole, encoder.sample_rate)[0], decoded(kind, streamed, encoder.sample_rate)[0])
    if kind == "wav":
        with wave.open(io.BytesIO(whole)) as file:
            assert file.getnframes() == (len(whole) - 44) // 2 == pytest.approx(1.5 / speed * encoder.sample_rate, abs=2)
    elif kind == "flac":
        assert soundfile.info(io.BytesIO(whole)).frames == len(decoded(kind, whole, encoder.sample_rate)[0])
        assert whole[26:42] != bytes(16) == streamed[26:42]  # the samples' MD5
    else:
        assert whole == streamed


@pytest.mark.parametrize("speed", [1, 1.3])
@pytest.mark.parametrize(("kind", "rate"), RATES, ids=str)
def test_a_flush_brings_all_the_sound_so_far_and_the_file_continues(kind, rate, speed):
    encoder, delay = Encoder(kind, rate, speed), {"mp3": 1105, "aac": 1024}.get(kind, 0)
    content = encoder.encode(tone(0.7)) + encoder.flush()
    heard, heard_rate = decoded(kind, content, encoder.sample_rate)
    assert len(heard) - delay >= round(0.7 / speed * heard_rate) - 1
    end = round(0.7 / speed * heard_rate) + delay
    assert np.abs(heard[end - heard_rate // 50 : end]).max() > 0.5
    assert not np.abs(heard[end + heard_rate // 50 :]).max(initial=0) > 0.05
    more = content + encoder.encode(tone(0.5)) + encoder.finish()
    again, _ = decoded(kind, more, encoder.sample_rate)
    assert 1.2 / speed - 0.01 < len(again) / heard_rate < 1.2 / speed + 0.3
    assert np.abs(again[-delay - heard_rate // 10 :]).max() > 0.5


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_whole_file_without_any_sound_is_one(kind):
    encoder = Encoder(kind)
    assert soundfile.info(io.BytesIO(encoder.with_true_sizes(encoder.finish()))).frames < 0.03 * NATIVE_RATE


@pytest.mark.parametrize("kind", ["mp3", "opus", "flac", "aac"])
def test_closing_ends_ffmpegs_threads_while_the_encoder_is_still_held(kind):
    """A client that leaves leaves an exception, whose frames hold the encoder until Python collects them."""
    before = psutil.Process().num_threads()
    encoders = [Encoder(kind, speed=1.5) for _ in range(5)]
    for encoder in encoders:
        encoder.encode(np.zeros(20_000, np.float32))
        encoder.close()
        encoder.close()
    wait(lambda: psutil.Process().num_threads() <= before)  # Linux counts a thread for a moment after it was joined
