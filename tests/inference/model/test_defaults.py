import json

import pytest

from inference import CheckpointError, SpeechRequest
from inference.hub import EMBEDDED_VOICE
from inference.model.config import GenerationDefaults
from inference.text.segments import Segmentation
from training.recipe import MANNER


def test_without_a_file_it_is_the_references(tmp_path):
    assert GenerationDefaults.from_file(tmp_path / "generation_config.json") == GenerationDefaults(0.7, 0.7, 1.2, normalize=False)


def test_what_the_file_says_counts_and_what_it_does_not_say_does_not(tmp_path):
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"temperature": 0.5, "top_p": None, "normalize": True, "eos_token_id": 3}))
    assert GenerationDefaults.from_file(file) == GenerationDefaults(0.5, 0.7, 1.2, normalize=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"temperature": 3}', "temperature is 3; it must be a number between 0 and 2"),
        ('{"top_p": "much"}', "top_p is 'much'"),
        ('{"repetition_penalty": NaN}', "repetition_penalty is nan"),
        ('{"temperature": true}', "temperature is True"),
        ('{"normalize": 1}', "normalize is 1; it must be true or false"),
        ('{"chunk": "page"}', "chunk is 'page'; it must be one of bytes, sentence"),
        ('{"max_segment_bytes": 3}', "max_segment_bytes is 3; it must be null or a whole number of at least 10"),
        ('{"history": -1}', "history is -1; it must be null or a whole number of at least 0"),
        ('{"history": true}', "history is True"),
        ('{"sentence_pause": 9}', "sentence_pause is 9; it must be between 0 and 5 seconds"),
        ('{"alignment_heads": [[1, -2]]}', r"alignment_heads is \[\[1, -2\]\]; it must be a list of pairs \[layer, head\]"),
        ('{"alignment_heads": 3}', "alignment_heads is 3"),
        ('{"guard_heads": [[1]]}', r"guard_heads is \[\[1\]\]"),
        ('{"alignment_delay": -0.1}', "alignment_delay is -0.1; it must be between 0 and 1 seconds"),
        ("[]", "holds a JSON list"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused(tmp_path, content, words):
    file = tmp_path / "generation_config.json"
    file.write_text(content)
    with pytest.raises(CheckpointError, match=words):
        GenerationDefaults.from_file(file)


def test_a_request_has_its_way_where_it_says_so():
    resolved = SpeechRequest("hi", temperature=0.1, normalize=False).resolved(GenerationDefaults(0.5, 0.6, 1.0, normalize=True))
    assert resolved.sampling == (0.1, 0.6, 1.0)
    assert resolved.normalize is False


def test_how_text_is_cut_and_remembered_stays_out_of_a_request(tmp_path):
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"chunk": "sentence", "max_segment_bytes": 50, "history": 0, "sentence_pause": 0.3}))
    defaults = GenerationDefaults.from_file(file)
    assert defaults.segmentation == Segmentation("sentence", 50, sentence_pause=0.3)
    assert SpeechRequest("hi").resolved(defaults).chunk_length == 200


def test_the_heads_that_follow_the_text_are_pairs_of_layer_and_head(tmp_path):
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"alignment_heads": [[1, 0], [2, 3]]}))
    assert [(h.layer, h.head) for h in GenerationDefaults.from_file(file).alignment_heads] == [(1, 0), (2, 3)]


def test_minnow_ships_the_defaults_of_its_recipe():
    assert GenerationDefaults.from_file(EMBEDDED_VOICE / "generation_config.json") == MANNER
