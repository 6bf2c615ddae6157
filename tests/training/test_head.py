"""What the head's distances hear."""

import torch

from training.discriminators import Adversary
from training.head import MelDistance, ModulationDistance


def pulses(shift):
    return ((torch.arange(15_360) - shift) % 220 == 0).float()[None]


def test_modulation_hears_that_there_are_pulses_and_not_when():
    torch.manual_seed(0)
    noise = torch.randn(1, 15_360) * pulses(0).std()
    modulation, mel = ModulationDistance(), MelDistance()
    assert modulation(pulses(110), pulses(0)) < modulation(noise, pulses(0)) / 10
    assert mel(pulses(110), pulses(0)) > mel(noise, pulses(0)) / 2  # what makes a head that cannot know when fall silent between


def test_equal_sounds_are_at_no_distance():
    wave = torch.randn(2, 15_360, generator=torch.Generator().manual_seed(0))
    assert ModulationDistance()(wave, wave) == MelDistance()(wave, wave) == 0


def test_fine_resolutions_can_be_left_out():
    a, b = torch.randn(2, 2, 15_360, generator=torch.Generator().manual_seed(0)).unbind()
    assert 0 < MelDistance(fine=0)(a, b) < MelDistance(fine=0.5)(a, b) < MelDistance(fine=1)(a, b)


def test_an_adversary_learns_to_tell_and_a_head_to_deceive():
    torch.manual_seed(0)
    adversary, true, made = Adversary(width=2), torch.randn(1, 2048) * 0.1, torch.zeros(1, 2048)
    optimiser = torch.optim.AdamW(adversary.parameters(), lr=1e-2)
    first = adversary.loss(true, made).item()
    for _ in range(80):
        optimiser.zero_grad()
        adversary.loss(true, made).backward()
        optimiser.step()
    assert adversary.loss(true, made) < first / 2
    made = torch.zeros(1, 2048).normal_(std=1e-3).requires_grad_()
    belief, likeness = adversary.deception(true, made)
    (belief + likeness).backward()
    with torch.no_grad():
        better = adversary.deception(true, made - 0.01 * made.grad.sign())
    assert sum(better) < belief + likeness
