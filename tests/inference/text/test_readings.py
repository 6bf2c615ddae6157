"""A table of written forms in the 13 languages of FishSpeech 1.5, and how people read them aloud."""

import string
import time
from pathlib import Path

import pytest

from inference.text.language import language
from inference.text.normalize import normalize

RIGHT = 0.98
SENTENCES = {
    "en": "She lives near the station and it is late.", "de": "Sie wohnt in der Nähe und es ist spät.", "fr": "Elle habite près de la gare.",
    "es": "Ella vive cerca de la estación.", "it": "Abita vicino alla stazione ed è tardi.", "pt": "Ela mora perto da estação e não sai.",
    "nl": "Zij woont in de buurt van het station.", "pl": "Ona mieszka w pobliżu dworca i jest późno.", "ru": "Она живёт рядом.",
    "ar": "هي تسكن قرب المحطة.", "ja": "彼女は駅の近くに住んでいます。", "ko": "그녀는 역 근처에 산다.", "zh": "她住在车站附近。",
}  # fmt: skip


def table():
    name, rows = "", []
    for line in Path(__file__).with_name("readings.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
        elif line and not line.startswith("#"):
            rows.append((name, *line.rsplit(" = ", 1)))
    return rows


def test_the_table_is_large_and_says_nothing_twice():
    rows = table()
    assert len(rows) >= 400
    assert len({(name, written) for name, written, _ in rows}) == len(rows)
    assert {name for name, *_ in rows} == set(SENTENCES)


def test_nearly_all_written_forms_are_read_as_people_read_them():
    wrong = [
        (name, written, said, heard) for name, written, said in table() if (heard := " ".join(normalize(written, name).split())) != said
    ]
    share = 1 - len(wrong) / len(table())
    print(f"{share:.1%} of {len(table())} right", *wrong, sep="\n")
    assert share >= RIGHT


def test_no_reading_leaves_a_digit():
    assert not [row for row in table() if set(normalize(row[1], row[0])) & set(string.digits)]


@pytest.mark.parametrize(("name", "sentence"), SENTENCES.items())
def test_a_sentence_shows_its_language(name, sentence):
    assert language(sentence, "") == name


def test_english_words_are_not_put_into_other_languages():
    text = "Heute ist es 5 km weit. 3,5 km. It is 5 km. 3 km."
    said = "Heute ist es fünf Kilometer weit. drei Komma fünf Kilometer. It is five kilometers. three kilometers."
    assert normalize(text) == said


@pytest.mark.parametrize(
    "sentence",
    ["Tokyo 東京 is a large city.", "He said Привет to all of them.", "7:30 AM.", "OS X 10", "It is 5 km.", "5 km", "", "Nothing"],
)
def test_names_signs_and_acronyms_do_not_make_a_sentence_foreign(sentence):
    assert language(sentence) == "en"


@pytest.mark.parametrize("name", ["de", "ru", "zh"])
@pytest.mark.parametrize("unit", ["1", "1-", "1 ", "1.", "1,", "1:", "5 % ", "€1 ", "1 km ", "1. a", "z. "])
def test_time_grows_with_the_length_alone(name, unit):
    text = (unit * 10_000)[:10_000]
    started = time.process_time()
    normalize(text, name)
    assert time.process_time() - started < 5  # a rule that tries every start against every end would take minutes
