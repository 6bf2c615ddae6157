import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import CheckpointError
from inference.model.config import CodecConfig, DualARConfig
from tests.conftest import GOLDEN

OFFICIAL = {
    "model_type": "dual_ar", "vocab_size": 102048, "n_layer": 24, "n_head": 16, "n_local_heads": 2, "head_dim": 64, "dim": 1024,
    "intermediate_size": 4096, "max_seq_len": 8192, "codebook_size": 1024, "num_codebooks": 8, "n_fast_layer": 4,
    "tie_word_embeddings": False, "attention_qkv_bias": False, "rope_base": 1e6, "norm_eps": 1e-6, "dropout": 0.1,
}  # fmt: skip


def test_the_official_shape():
    config = DualARConfig.from_dict(OFFICIAL)
    assert (config.head_dim, config.fast_dim, config.fast_n_head, config.fast_intermediate_size) == (64, 1024, 16, 4096)


def test_null_and_missing_fields_take_the_official_defaults():
    nulls = {f"fast_{n}": None for n in ("dim", "n_head", "n_local_heads", "head_dim", "intermediate_size", "attention_qkv_bias")}
    assert DualARConfig.from_dict(OFFICIAL | nulls) == DualARConfig.from_dict(OFFICIAL)
    config = DualARConfig.from_dict({})
    assert (config.dim, config.n_local_heads, config.intermediate_size, config.num_codebooks) == (4096, 32, 11008, 4)
    assert config.tie_word_embeddings


def test_the_fast_model_may_differ():
    config = DualARConfig.from_dict(
        OFFICIAL | {"fast_dim": 512, "fast_n_head": 8, "fast_n_local_heads": 4, "fast_attention_qkv_bias": True}
    )
    assert (config.fast_head_dim, config.fast_n_local_heads, config.fast_attention_qkv_bias) == (64, 4, True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dim": "big"}, "dim is 'big'"), ({"n_head": 0}, "n_head is 0"), ({"n_layer": 2.5}, "n_layer is 2.5"),
        ({"dim": 1000}, "does not divide"), ({"n_local_heads": 3}, "cannot share"), ({"norm_eps": math.nan}, "norm_eps is nan"),
        ({"tie_word_embeddings": "no"}, "true or false"), ({"model_type": "naive"}, "model_type 'naive'"), ({"codebook_size": 4096}, "above"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_is_named(change, complaint):
    with pytest.raises(CheckpointError, match=complaint):
        DualARConfig.from_dict(OFFICIAL | change)


json_values = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner))


@given(st.dictionaries(st.sampled_from([*OFFICIAL, "fast_dim", "fast_n_head", "unknown"]), json_values))
def test_any_json_object_is_read_or_refused_in_a_sentence(changes):
    try:
        DualARConfig.from_dict(OFFICIAL | changes)
    except CheckpointError as e:
        assert "config.json" in str(e)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"3"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        DualARConfig.from_file(tmp_path / "config.json")


def test_the_codec_shape_is_read_off_its_tensors(golden):
    raw = json.loads((GOLDEN / "codec_tiny/codec_config.json").read_text())
    config = golden.codec.config
    assert list(config.depths) == raw["backbone"]["depths"]
    assert list(config.dims) == raw["backbone"]["dims"]
    assert config.groups == raw["quantizer"]["n_groups"]
    assert config.head_channels == raw["head"]["upsample_initial_channel"]
    assert list(config.upsample_rates) == raw["head"]["upsample_rates"]


def test_a_codec_of_another_kind_is_refused(golden):
    tensors = golden.codec.state_dict()
    with pytest.raises(CheckpointError, match=r"not a Firefly codec: tensor backbone"):
        CodecConfig.from_state_dict({"other.weight": tensors["head.conv_pre.conv.weight"]})
    with pytest.raises(CheckpointError, match="samples a frame"):
        CodecConfig.from_state_dict({n: t for n, t in tensors.items() if not n.startswith("head.ups.4")})
