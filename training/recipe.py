"""All numbers of the recipe: seeds, sizes, and how long each stage runs.

A stage reads its part of a `Recipe` and writes files into `Recipe.folder`; it does not make existing files again.
Time is counted in seconds of work (`Machine.clock`), so a run that was paused or resumed trains as long as one that was not.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from inference.model.config import AlignmentHead, GenerationDefaults


@dataclass(frozen=True)
class TextRecipe:
    """How much text of each kind to read aloud."""

    seed: int = 7
    generated: int = 23_000
    """Sentences filled into templates: numbers, dates, times, money, names, questions."""
    everyday: int = 9_000
    """Greetings, requests and small talk from templates."""
    joined: int = 5_000
    """Texts of two or three sentences, up to 200 characters."""
    validation: int = 160
    wordnet: Path = Path("/usr/share/wordnet")


@dataclass(frozen=True)
class SpeechRecipe:
    """The speech to make with the teacher."""

    utterances: int = 66_000
    per_shard: int = 1_000
    shards_with_audio: int = 12
    """Shards that keep waveforms; the head needs no more. Every utterance keeps its log-mel."""
    seed: int = 0


@dataclass(frozen=True)
class EncoderRecipe:
    """Encoder and quantizer, trained with a mel decoder that is thrown away."""

    dims: tuple[int, ...] = (64, 96, 128, 128)
    depths: tuple[int, ...] = (1, 1, 3, 1)
    shards: int = 6
    seconds: float = 420
    batch: int = 8
    crop: int = 128
    """Mel frames a crop (512 samples each)."""
    rate: float = 2.5e-3
    phoneme_weight: float = 0.2
    group_dropout: float = 0.4
    pre_bound_scale: float = 0.55
    """Standard deviation of a digit before the double tanh; at 1 most digits saturate."""
    seed: int = 0


@dataclass(frozen=True)
class HeadRecipe:
    """HiFi-GAN head on frozen codes."""

    channels: int = 96
    seconds: float = 3_000
    batch: int = 4
    context: int = 16
    """Code frames before the crop: the decoder sees this far back."""
    crop: int = 8
    rate: float = 3e-3
    upsample_rate: float = 3e-4
    digit_noise: float = 0.03
    fine_weight: float = 0
    """Weight of the mel distances that resolve single pulses, relative to the others."""
    modulation_weight: float = 2
    adversarial_seconds: float = 0
    """Seconds of adversarial training after `seconds`."""
    adversary_width: int = 16
    adversary_rate: float = 5e-4
    adversarial_rate: float = 5e-4
    adversary_ramp: int = 200
    """Steps over which the adversary's weight grows to 1."""
    distance_weight: float = 30
    """Beside the sums of the discriminators' belief (8 terms) and of the likeness (32 terms)."""
    adversarial_modulation_weight: float = 0.25
    """Instead of `modulation_weight` while there is an adversary, which hears pulses too."""
    likeness_weight: float = 2
    average: float = 0.998
    """Decay of the moving average of the weights; measurement and export use this average."""
    shards: int = 6
    seed: int = 0


@dataclass(frozen=True)
class DualARRecipe:
    """The language model. Batches are counted in columns, not in utterances."""

    dim: int = 192
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    hidden: int = 672
    fast_layers: int = 1
    max_seq_len: int = 2048
    seconds: float = 17_000
    """Seconds of work, all processes together."""
    decay_seconds: float = 12_000
    meet_every: int = 40
    """Steps after which several processes continue from the mean of their weights."""
    columns: int = 1_700
    loaders: int = 0
    """Processes that make batches for the training process; 0: it makes them itself."""
    rate: float = 2e-3
    weight_decay: float = 0.05
    average: float = 0.998
    """Decay of the moving average of the weights; evaluation and export use this average."""
    fast_share: float = 0.3
    """Share of the frames whose codes the fast model is trained on in a step."""
    guided: tuple[tuple[int, tuple[int, ...]], ...] = ((1, (0, 0)), (2, (0, 0)), (3, (0, 2, 4)))
    """Layers and, for each of their first heads, how many bytes past the spoken byte it should look."""
    guide_weight: float = 1.75
    guide_width: float = 1.5
    """Standard deviation, in bytes of text, of where a guided head may look."""
    phoneme_layer: int = 3
    """Here the phoneme to come is told, and who speaks."""
    phoneme_weight: float = 0.5
    speaker_weight: float = 0.6
    clip_share: float = 0.55
    """Share of the steps that follow clips of other speakers, where there are codes of any."""
    system_share: float = 0.5
    several_share: float = 0.3
    """Share of the sequences that hold two or three utterances: references and long texts."""
    noisy_share: float = 0.8
    noise: float = 0.7
    """At most this share of a noisy sequence's input frames is altered."""
    own_share: float = 0.3
    """Share of the steps that use frames the model itself would have generated, instead of this noise."""
    own: float = 0.7
    """In such a step, at most this share of a sequence's input frames is the model's own."""
    own_temperature: float = 0.8
    bfloat16: bool = True
    seed: int = 0


MANNER = GenerationDefaults(
    temperature=0.4,
    top_p=0.4,
    repetition_penalty=1.0,
    normalize=True,
    spell_capitals=True,
    chunk="sentence",
    max_segment_bytes=110,
    history=0,
    clause_pause=0.15,
    sentence_pause=0.6,
    paragraph_pause=0.9,
    alignment_heads=(AlignmentHead(1, 0), AlignmentHead(1, 1)),
    alignment_delay=0.085,
    guard_heads=(AlignmentHead(1, 0), AlignmentHead(1, 1), AlignmentHead(2, 0), AlignmentHead(2, 1)),
)
"""One sentence per segment, without history: in training, sequences of two utterances had at most 300 columns, and beyond that the model
loses the text. The alignment heads are those of `DualARRecipe.guided` that look at the spoken byte itself and need fewest layers; the
guard, which works once a segment, looks through more of them. They learned from the teacher's durations, behind which its sound does not
wait: `training.word_times` measures by how much.
"""


@dataclass(frozen=True)
class Recipe:
    """The whole recipe, and the folder it works in."""

    folder: Path
    text: TextRecipe = field(default_factory=TextRecipe)
    speech: SpeechRecipe = field(default_factory=SpeechRecipe)
    encoder: EncoderRecipe = field(default_factory=EncoderRecipe)
    head: HeadRecipe = field(default_factory=HeadRecipe)
    dual_ar: DualARRecipe = field(default_factory=DualARRecipe)
    defaults: GenerationDefaults = field(default_factory=lambda: MANNER)
    """The exported checkpoint's defaults for values that a request leaves out."""
    evaluated: int = 60
    """Held-out sentences that `evaluate` speaks: all, or the first so many."""
    checkpoint_seconds: float = 150
    step_seconds: float | None = None
    """Seconds that each step counts as, whatever its actual time (`Machine.step_seconds`)."""

    @classmethod
    def gpu(cls, folder: Path) -> Recipe:
        """The same recipe for one GPU, where a step costs about the same whatever its size: fewer and larger steps.

        README.md has the arithmetic.
        """
        cpu = cls(folder)
        return replace(
            cpu,
            speech=replace(cpu.speech, per_shard=250, shards_with_audio=48),
            encoder=replace(cpu.encoder, shards=24, seconds=45, batch=64),
            head=replace(cpu.head, shards=48, seconds=90, adversarial_seconds=330, batch=32),
            dual_ar=replace(cpu.dual_ar, seconds=420, decay_seconds=300, columns=16_000, fast_share=1.0, loaders=4),
            checkpoint_seconds=60,
        )

    @classmethod
    def smoke(cls, folder: Path) -> Recipe:
        """Every stage at a size that runs in half a minute and learns nothing: as many steps on any machine."""
        return cls(
            folder,
            TextRecipe(generated=60, everyday=20, joined=10, validation=8),
            SpeechRecipe(utterances=20, per_shard=10, shards_with_audio=2),
            EncoderRecipe(dims=(16, 16, 16, 64), depths=(1, 1, 1, 1), shards=2, seconds=2, batch=2),
            HeadRecipe(channels=32, seconds=1, batch=1, shards=2, adversarial_seconds=1, adversary_width=2),
            DualARRecipe(
                dim=32,
                layers=3,
                heads=4,
                kv_heads=2,
                hidden=64,
                seconds=2,
                decay_seconds=1,
                meet_every=2,
                columns=400,
                guided=((1, (0, 2)),),
                phoneme_layer=2,
            ),
            evaluated=2,  # a model that has learned nothing speaks each for 47 s
            checkpoint_seconds=0.75,
            step_seconds=0.1,
        )
