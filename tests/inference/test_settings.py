"""Settings under the names they had before."""

import pytest

from inference.errors import ConfigurationError
from inference.settings import read


def test_the_old_name_of_slots_works_and_says_the_new_one(monkeypatch, caplog):
    monkeypatch.setenv("FISHSERVE_ROWS", "3")
    assert read().slots == 3
    assert "FISHSERVE_ROWS is now FISHSERVE_SLOTS" in caplog.text
    monkeypatch.setenv("FISHSERVE_SLOTS", "5")
    assert read().slots == 5
    assert read(slots=7).slots == 7


def test_8_bit_weights_are_not_for_cpus_alone_any_more(monkeypatch, caplog):
    monkeypatch.setenv("FISHSERVE_CPU_WEIGHTS", "int8")
    assert read(device="cuda").weights == "int8"
    assert "FISHSERVE_CPU_WEIGHTS is now FISHSERVE_WEIGHTS" in caplog.text
    monkeypatch.setenv("FISHSERVE_WEIGHTS", "int4")
    with pytest.raises(ConfigurationError, match=r"^weights \(FISHSERVE_WEIGHTS\) is 'int4': Input should be 'native' or 'int8'$"):
        read()


def test_fast_layers_are_separate_kernels_unless_one_is_asked_for(monkeypatch):
    assert read().fast_layers == "separate"
    monkeypatch.setenv("FISHSERVE_FAST_LAYERS", "persistent")
    assert read().fast_layers == "persistent"


def test_replicas_are_engines_on_each_device():
    assert read(device="cuda:0, cuda:1", replicas=2).devices == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert read(device="cpu").devices == ["cpu"]


def test_the_new_name_says_nothing(monkeypatch, caplog):
    monkeypatch.setenv("FISHSERVE_SLOTS", "5")
    assert read().slots == 5
    assert caplog.text == ""
