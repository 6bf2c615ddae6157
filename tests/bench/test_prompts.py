from itertools import islice, pairwise

import pytest

from bench.prompts import BUCKETS, TEXTS, prompts
from inference import RequestError, SpeechRequest


def test_no_prompt_comes_twice_and_none_begins_as_another():
    made = list(islice(prompts(BUCKETS, tuple(TEXTS)), 500))
    assert len({p.text for p in made}) == 500
    assert len({p.text.split()[0] + p.text.split(".")[0] for p in made if p.language == "en"}) == len(
        [p for p in made if p.language == "en"]
    )
    assert {(p.bucket, p.language) for p in made} == {(b, lang) for b in BUCKETS for lang in TEXTS}


def test_the_same_settings_make_the_same_prompts():
    assert list(islice(prompts(), 9)) == list(islice(prompts(), 9))
    assert next(prompts(first=7)).text.startswith("Number 7.")


@pytest.mark.parametrize("language", TEXTS)
def test_every_text_can_be_spoken_and_buckets_grow(language):
    lengths = [[len(t) for t in TEXTS[language][bucket]] for bucket in BUCKETS]
    for shorter, longer in pairwise(lengths):
        assert max(shorter) < min(longer)
    for bucket in BUCKETS:
        for text in TEXTS[language][bucket]:
            SpeechRequest(text)


def test_an_unknown_bucket_or_language_is_one_sentence():
    with pytest.raises(RequestError, match="'huge' is not one of short"):
        prompts(["huge"])
    with pytest.raises(RequestError, match="'xx' is not one of en"):
        prompts(languages=["xx"])
