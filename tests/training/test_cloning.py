"""The figures of cloning, from similarities and pitches that are known."""

import numpy as np
import pytest

from training.cloning import VOICES, Following, rank_correlation, score
from training.kokoro import TEACHER_VOICE

FEMALE = np.array([True, True, False, False])
CLIPS = np.array([210.0, 190.0, 120.0, 100.0])


def similar(to):
    """Two sentences of each of four speakers: 0.9 to the speaker that `to` names for it, 0.5 to all others."""
    similarity = np.full((4, 2, 4), 0.5)
    for speaker, other in enumerate(to):
        similarity[speaker, :, other] = 0.9
    return similarity


def test_speech_of_the_cloned_speakers_reaches_everything():
    reached = score(similar([0, 1, 2, 3]), CLIPS, np.stack((CLIPS, CLIPS * 1.1), axis=1), FEMALE)
    assert reached == Following(1.0, pytest.approx(0.9), pytest.approx(0.5), 1.0, pytest.approx(1.0))


def test_speech_of_one_speaker_is_at_chance():
    reached = score(similar([1, 1, 1, 1]), CLIPS, np.full((4, 2), 220.0), FEMALE)
    assert reached == Following(0.25, pytest.approx(0.6), pytest.approx(0.8), 0.5, 0.0)


def test_speech_without_pitch_is_on_no_side():
    assert score(similar([0, 1, 2, 3]), CLIPS, np.zeros((4, 2)), FEMALE).right_side == 0


def test_rank_correlation_counts_order_only_and_shares_ranks():
    assert rank_correlation(CLIPS, np.array([4.0, 3.0, 2.0, -9.0])) == pytest.approx(1)
    assert rank_correlation(CLIPS, -CLIPS) == pytest.approx(-1)
    assert rank_correlation(CLIPS, np.array([2.0, 2.0, 1.0, 1.0])) == pytest.approx(0.8944, abs=1e-4)


def test_six_women_and_six_men_are_cloned_but_not_the_teacher():
    assert [voice[1] for voice in sorted(VOICES, key=lambda v: v[1])] == ["f"] * 6 + ["m"] * 6
    assert TEACHER_VOICE not in VOICES
