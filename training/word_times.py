"""How exact the times of minnow's words are, and what they cost.

On sentences that minnow was not trained on, the starts of words are compared with three others. Two are independent: a forced aligner
(training/aligner.py) and Whisper's own word times. The teacher's speech, whose durations are known, says how much these two err themselves.
On that speech minnow's attention is compared with these durations; on minnow's speech with the same durations, carried over by aligning
the sound of both (dynamic time warping).
"""

from __future__ import annotations

import argparse
import difflib
import json
import multiprocessing
import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bench.record import facts, recording
from inference import SpeechEngine, SpeechRequest
from inference.engine.times import HOP, character_times, earlier
from inference.model.alignment import character_bounds, text_attention, token_starts
from inference.model.checkpoint import Checkpoint
from inference.model.codec import LogMel
from inference.model.config import FRAMES_PER_SECOND, SAMPLE_RATE
from inference.model.dual_ar import Span
from inference.model.prompt import PromptBuilder
from inference.processes import end_with_parent
from inference.text.words import SpokenLine, SpokenWord, spoken_lines
from training.aligner import Aligner, hiss_starts
from training.evaluate import Ear, needs
from training.recipe import TextRecipe
from training.speech import Teacher
from training.text import corpus
from training.word_time_cases import SPEEDS, TEXTS, FileErrors, at_speed, carried_over, costs, errors_as_sent, taught_starts

AS_SENT = "attention, against the teacher's durations carried over, in files"
AS_ALIGNED = "attention, against the aligner, in files"
STREAMS = 8
GOAL_MILLISECONDS, GOAL_95_MILLISECONDS = 40, 120
Errors = dict[str, list[float]]
"""Differences in seconds by what is compared with what."""


class Reader:
    """Reads word starts from attention for given codes, and counts the seconds that it takes."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._lm = checkpoint, checkpoint.lm
        self._builder = PromptBuilder(checkpoint.tokenizer, checkpoint.config.num_codebooks)
        self.seconds = 0.0

    @torch.inference_mode()
    def bounds(self, text: str, codes: np.ndarray) -> np.ndarray:
        """When each character of `text` begins and the last one ends in speech of `codes` (codebooks, frames), in seconds."""
        spoken, tokenizer = torch.from_numpy(np.ascontiguousarray(codes, np.int64)), self._checkpoint.tokenizer
        system, segment = self._builder.system(), self._builder.segment(text)
        prompt = torch.cat((system, segment), dim=1)
        columns = torch.cat((prompt, torch.cat((spoken[:1] + tokenizer.semantic_begin, spoken))), dim=1)[:, :-1]
        cache = self._lm.new_cache(1, columns.shape[1])
        self._lm.slow(columns[None], cache, Span.prompt(0, 0, columns.shape[1], self._checkpoint.device))
        inside, start = self._builder.text_of(segment), prompt.shape[1] - 1
        began = time.perf_counter()
        first = system.shape[1] + inside.start
        heads = self._checkpoint.defaults.alignment_heads
        attention = text_attention(self._lm, cache, 0, columns[:, start:], start, range(first, first + len(inside) + 1), heads)
        pieces = tokenizer.pieces(segment[0, inside.start : inside.stop].tolist())
        bounds = character_bounds(text, pieces, token_starts(attention.numpy())) / FRAMES_PER_SECOND
        found = earlier(bounds, len(text), self._checkpoint.defaults.alignment_delay)
        self.seconds += time.perf_counter() - began
        return found


def word_starts(text: str, wave: np.ndarray, bounds: np.ndarray | None) -> np.ndarray:
    """When each word of `text` begins in `wave`, in seconds; estimated without `bounds`."""
    energy = np.square(wave[: len(wave) // HOP * HOP].reshape(-1, HOP)).mean(axis=1)
    times = character_times(text, energy, True, bounds)
    return np.array([times[word.begin, 0] for word in _words(text)])


def heard_starts(text: str, ear: Ear, wave: np.ndarray) -> np.ndarray:
    """When Whisper hears each word of `text` begin, in seconds; nan for words that it writes differently."""
    heard = ear.hear_words(wave)
    asked = [_bare(text[word.begin : word.end]) for word in _words(text)]
    starts = np.full(len(asked), np.nan)
    for block in difflib.SequenceMatcher(None, asked, [_bare(word) for word, _ in heard], autojunk=False).get_matching_blocks():
        for n in range(block.size):
            starts[block.a + n] = heard[block.b + n][1]
    return starts


def compare(count: int, parts: int, part: int) -> tuple[Errors, dict[str, float], set[str]]:
    """The errors on `count` sentences and on TEXTS, or one of `parts` of these; the seconds that speech, generation and reading took;
    and words unknown to the aligner.
    """
    errors: Errors = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    ear, aligner, mel, spoken = Ear(), Aligner(), LogMel(160), 0
    with TemporaryDirectory() as folder, SpeechEngine.load(device="cpu") as engine:
        teacher, on_teacher, on_minnow = Teacher(Path(folder)), Reader(engine.checkpoint), Reader(engine.checkpoint)
        engine.synthesize(SpeechRequest("Warming up.", seed=0))
        for number, text in enumerate(_sentences(engine.checkpoint)):
            if spoken == count:
                break
            taught = teacher.speak(text, seed=number)
            if taught is None or taught.wave is None:
                continue
            spoken += 1
            if spoken % parts != part:
                continue
            began = time.perf_counter()
            stream = engine.stream(SpeechRequest(text, seed=number, normalize=False))
            wave = np.concatenate([chunk.samples for chunk in stream])
            seconds["generation"] += time.perf_counter() - began
            seconds["speech"] += len(wave) / SAMPLE_RATE
            assert stream.codes is not None
            true, teacher_wave = taught_starts(_line(text), taught), taught.wave.numpy().astype(np.float32) / 32768
            read_taught = word_starts(text, teacher_wave, on_teacher.bounds(text, engine.encode(teacher_wave)))
            read = word_starts(text, wave, on_minnow.bounds(text, stream.codes))
            estimated = word_starts(text, wave, None)
            carried = carried_over(true, taught.mel.float(), mel(torch.from_numpy(wave)[None])[0])
            whisper_taught, whisper = heard_starts(text, ear, teacher_wave), heard_starts(text, ear, wave)
            begins = [word.begin for word in _words(text)]
            aligned_taught, aligned = aligner.starts(text, begins, teacher_wave), aligner.starts(text, begins, wave)
            hiss_taught, hiss = hiss_starts(text, begins, teacher_wave, aligned_taught), hiss_starts(text, begins, wave, aligned)
            for name, difference in (
                ("teacher's durations, against the hiss, on the teacher's speech", true - hiss_taught),
                ("aligner, against the hiss, on the teacher's speech", aligned_taught - hiss_taught),
                ("Whisper, against the hiss, on the teacher's speech", whisper_taught - hiss_taught),
                ("attention, against the hiss, on minnow's speech", read - hiss),
                ("aligner, against the hiss, on minnow's speech", aligned - hiss),
                ("Whisper, against the hiss, on minnow's speech", whisper - hiss),
                ("attention, against the teacher's durations, on the teacher's speech", read_taught - true),
                ("aligner, against the teacher's durations, on the teacher's speech", aligned_taught - true),
                ("Whisper, against the teacher's durations, on the teacher's speech", whisper_taught - true),
                ("attention, against the teacher's durations carried over, on minnow's speech", read - carried),
                ("Whisper, against the teacher's durations carried over, on minnow's speech", whisper - carried),
                ("estimate, against the teacher's durations carried over, on minnow's speech", estimated - carried),
                ("aligner, against the teacher's durations carried over, on minnow's speech", aligned - carried),
                ("attention, against the aligner, on minnow's speech", read - aligned),
                ("estimate, against the aligner, on minnow's speech", estimated - aligned),
                ("attention, against Whisper, on minnow's speech", read - whisper),
                ("estimate, against Whisper, on minnow's speech", estimated - whisper),
            ):
                errors[name] += difference[1:].tolist()  # Whisper lets the first word begin at 0
                if "estimate" not in name and "Whisper" not in name:
                    errors[f"{name}, first words"].append(float(difference[0]))
            for speed, found in zip(SPEEDS, errors_as_sent(engine, teacher, aligner, mel, text, number, SPEEDS), strict=True):
                _add(errors, f"at speed {speed}", found)
                file, position = at_speed(teacher_wave, speed)
                known = np.array([position(second) for second in true])
                errors[f"aligner, against the teacher's durations, on the teacher's speech at speed {speed}"] += (
                    aligner.starts(text, begins, file) - known
                )[1:].tolist()
            seconds["sentences"] += 1
        seconds["reading"] = on_minnow.seconds
        for kind, texts in TEXTS.items():
            for number, text in list(enumerate(texts))[part::parts]:
                _add(errors, kind, errors_as_sent(engine, teacher, aligner, mel, text, number)[0])
    return errors, dict(seconds), aligner.unknown


def compare_in_processes(count: int, processes: int) -> tuple[Errors, dict[str, float], list[str]]:
    """As `compare`, of all."""
    errors: Errors = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    unknown = set[str]()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent, (os.getpid(),)) as pool:
        for some, taken, words in pool.map(partial(compare, count, processes), range(processes)):
            for name, found in some.items():
                errors[name] += found
            for name, second in taken.items():
                seconds[name] += second
            unknown |= words
    return errors, dict(seconds), sorted(unknown)


def _add(errors: Errors, kind: str, found: FileErrors) -> None:
    errors[f"{AS_SENT}, {kind}"] += found.taught
    errors[f"{AS_ALIGNED}, {kind}"] += found.aligned
    errors[f"{AS_ALIGNED}, {kind}, first words"] += found.first


def compare_costs() -> list[dict[str, Any]]:
    """The costs for one stream and for eight."""
    with SpeechEngine.load(device="cpu") as engine:
        return costs(engine, _sentences(engine.checkpoint)[:STREAMS])


def summary(differences: Sequence[float]) -> dict[str, float]:
    """Figures in milliseconds of differences in seconds; nan does not count."""
    known = 1000 * np.array([d for d in differences if np.isfinite(d)])
    sizes = np.abs(known)
    figures = {"bias": np.median(known), "median": np.median(sizes)} | {f"{q}%": np.quantile(sizes, q / 100) for q in (90, 95, 99)}
    return {"words": len(known), **{name: round(float(value), 1) for name, value in figures.items()}}


def _sentences(checkpoint: Checkpoint) -> list[str]:
    """Sentences never trained on, as minnow reads them: the first segment of each."""
    drawn = corpus(TextRecipe())
    requests = [SpeechRequest(text).resolved(checkpoint.defaults) for text in (*(t.text for t in drawn.test), *drawn.validation)]
    return [request.script(checkpoint.defaults)[0][0].text for request in requests]


def _line(text: str) -> SpokenLine:
    return spoken_lines(text, [text], str)[0]


def _words(text: str) -> tuple[SpokenWord, ...]:
    return _line(text).words


def _bare(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=100, help="sentences to speak (default 100)")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the sentences (default 1)")
    parser.add_argument("--costs", action="store_true", help="measure the cost instead, with one stream and eight; for a machine at rest")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    chosen = parser.parse_args()
    if chosen.costs:
        with recording(chosen.out, "word-time-costs", {"streams": STREAMS}, facts(None)) as record:
            record.body["costs"] = compare_costs()
            print(json.dumps(record.body, indent=1), flush=True)
        return
    needs("pocketsphinx")
    with recording(chosen.out, "word-times", {"sentences": chosen.sentences}, facts(None)) as record:
        errors, seconds, unknown = compare_in_processes(chosen.sentences, chosen.processes)
        record.body |= {
            "milliseconds": {name: summary(d) for name, d in errors.items()},
            "goals_milliseconds": {"median": GOAL_MILLISECONDS, "95%": GOAL_95_MILLISECONDS},
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "unknown_to_the_aligner": unknown,
            "share_of_generation": round(seconds["reading"] / seconds["generation"], 4),
        }
        print(json.dumps(record.body, indent=1), flush=True)
        record.body["each"] = {name: [round(1000 * x, 1) if np.isfinite(x) else None for x in d] for name, d in errors.items()}


if __name__ == "__main__":
    main()
