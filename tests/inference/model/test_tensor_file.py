"""Files that were made to do harm: one sentence, nothing runs, and memory stays bounded."""

import argparse
import contextlib
import io
import os
import pickle
import pickletools
import struct
import tracemalloc
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from inference import CheckpointError
from inference.model import pickle_data, tensor_file
from tests import layouts

PROTO = b"\x80\x02"
FLOAT = b"ctorch\nFloatStorage\n"


def archive(path, content, storages=(), compression=zipfile.ZIP_STORED):
    """An archive as torch.save arranges it, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/byteorder", "little")
        for key, numbers in dict(storages).items():
            file.writestr(f"archive/data/{key}", numbers)
    return path


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tensor(key="0", count=4, offset=0, shape=(4,), stride=(1,), kind=FLOAT):
    """The instructions that rebuild a tensor."""
    storage = b"(" + text("storage") + kind + text(key) + text("cpu") + whole(count) + b"tQ"
    numbers = [b"(" + b"".join(map(whole, values)) + b"t" for values in (shape, stride)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + whole(offset) + b"".join(numbers) + b"\x89)tR"


def named(**tensors):
    return PROTO + b"}(" + b"".join(text(name) + content for name, content in tensors.items()) + b"u."


def refused(path):
    """The one sentence with which a file is refused, having taken little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as error:
            tensor_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    return message


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.pth"


def test_what_torch_saves_is_read_as_torch_reads_it(file):
    tensors = {
        "a": torch.randn(3, 4), "b": torch.randn(4, 6).T, "c": torch.randn(9)[2:5], "d": torch.arange(5), "e": torch.zeros(0, 3),
        "f": torch.tensor(2.0), "g": torch.nn.Parameter(torch.randn(2)), "h": torch.randn(2).to(torch.bfloat16), "i": torch.ones(3, dtype=torch.int8),
    }  # fmt: skip
    for protocol in (2, 4, 5):
        torch.save(tensors, file, pickle_protocol=protocol)
        read = tensor_file.read(file).tensors
        assert list(read) == list(tensors)
        assert all(torch.equal(read[n], t) and read[n].dtype == t.dtype for n, t in tensors.items())


def test_what_is_beside_the_weights_is_named_and_not_read(file):
    layouts.lightning({"norm.weight": torch.ones(3)}, file)
    damaged = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as opened:
        last = max((i for i in opened.infolist() if "/data/" in i.filename), key=lambda i: i.header_offset)
    damaged[damaged.index(bytes(12), last.header_offset)] ^= 1
    file.write_bytes(damaged)
    read = tensor_file.read(file)
    assert read.besides[:3] == ("epoch", "global_step", "pytorch-lightning_version")
    assert list(read.tensors) == ["model.norm.weight"]
    assert torch.equal(read.tensors["model.norm.weight"], torch.ones(3))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("how", ["reduce", "class", "state"])
def test_code_in_a_pickle_never_runs(file, tmp_path, protocol, how):
    class Reduced:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    value = {"reduce": Reduced(), "class": open, "state": argparse.Namespace(a=1)}[how]
    archive(file, pickle.dumps({"norm.weight": value}, protocol))
    assert "norm.weight is a" in refused(file)
    archive(file, pickle.dumps({"state_dict": {}, "callbacks": value}, protocol))
    assert "does not hold a dictionary of named tensors" in refused(file)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "code",
    [b"(S'touch owned'\nios\nsystem\n.", b"(cos\nsystem\nX\x05\x00\x00\x00touchoQ.", b"cos\nsystem\n)\x81.", b"cos\nsystem\n)}\x92.", b"cos\nsystem\n(S'x'\ntR}b."],
    ids=["INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"],
)  # fmt: skip
def test_no_instruction_runs_code(file, code):
    archive(file, PROTO + code)
    refused(file)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_archive(file, part):
    torch.save({"norm.weight": torch.zeros(1000)}, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    assert "cut off or damaged" in refused(file)


def test_a_zip_bomb(file):
    archive(file, named(a=tensor()) + bytes(50_000_000), {"0": bytes(16)}, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 100_000
    assert "data.pkl is compressed or encrypted" in refused(file)


def test_many_tensors_of_one_storage(file):
    content = named(**{f"t{i}": tensor(count=250_000, shape=(250_000,)) for i in range(1000)})
    archive(file, content, {"0": bytes(1_000_000)})
    assert "its tensors would take 1000000000 bytes" in refused(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor(shape=(1 << 20, 1 << 20), stride=(0, 0)), "is larger than the 4 numbers stored for it"),
        (tensor(shape=(2, 2), stride=(4, 1)), "is larger than the 4 numbers"), (tensor(offset=1), "is larger than the 4 numbers"),
        (tensor(count=1 << 40, shape=(1 << 40,)), "its tensors would take 4398046511104 bytes"), (tensor(shape=(-1,)), "without a shape"),
        (tensor(shape=(2, 2)), "without a shape"), (tensor(key="7"), "data/7 is missing"), (tensor(key="../x"), "x is missing"),
        (tensor(count=-4), "names a storage in no way"), (tensor(kind=b"cbuiltins\nint\n"), "an object of builtins.int"),
        (tensor(kind=b"ctorch\nQInt8Storage\n"), "an object of torch.QInt8Storage"), (tensor(shape=(1,) * 9, stride=(1,) * 9), "without a shape"),
        (tensor(kind=b"ctorch\nHalfStorage\n"), "should have 8 bytes"), (tensor(count=1 << 40), "should have 4398046511104 bytes, but is cut off"),
    ],
)  # fmt: skip
def test_tensors_that_are_not_what_they_say(file, content, message):
    archive(file, named(a=content), {"0": bytes(16)})
    assert message in refused(file)


@pytest.mark.parametrize(
    "content",
    [
        b"", b".", b"\x80\x02", b"(((((.", b"t.", b"u.", b"}}u.", b"Q.", b"h\x05.", b"R.", b"\x94.", b"\x97.", b"\x82\x01.", b"P1\n.", b"N\x93.",
        b"Nr\xff\xff\xff\xff.", b"\x8b\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"X\xff\xff\xff\x7f", b"I" + b"9" * 5000 + b"\n.", b"0.",
        b"(" * 100_000 + b"t" * 100_000 + b".",
    ],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_a_damaged_pickle(file, content):
    archive(file, content)
    refused(file)


def test_keys_that_would_take_for_ever_to_hash(file):
    deep = b")" + b"2\x86" * 60  # a pair of pairs of pairs ...
    archive(file, PROTO + b"}(" + deep + b"N" + text("a") + tensor() + b"u.", {"0": bytes(16)})
    assert list(tensor_file.read(file).tensors) == ["a"]


@pytest.mark.parametrize("name", ["x" * 1000, "a\nb", "\x1b[31mred", ""], ids=repr)
def test_names_that_cannot_stand_in_an_error(file, tmp_path, name):
    archive(file, PROTO + b"}(" + text(name) + tensor() + b"u.", {"0": bytes(16)})
    assert "it names a tensor" in refused(file)
    save_file({name: torch.zeros(1)}, tmp_path / "a.safetensors")
    assert "it names a tensor" in refused(tmp_path / "a.safetensors")


def test_a_storage_of_two_types(file):
    archive(file, named(a=tensor(), b=tensor(kind=b"ctorch\nIntStorage\n")), {"0": bytes(16)})
    assert "storage 0 is described in two ways" in refused(file)


def test_headers_of_two_gigabytes(tmp_path):
    size = 2 << 30
    safetensors, table, content = tmp_path / "a.safetensors", tmp_path / "b.pth", tmp_path / "c.pth"
    safetensors.write_bytes(struct.pack("<Q", size))
    os.truncate(safetensors, size + 1000)  # a hole takes no disk
    assert f"its header would have {size} bytes" in refused(safetensors)
    with table.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(size + 4)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 4, 0))
    assert "its table of contents is larger than 8 MiB" in refused(table)
    archive(content, b"x" * 5_000_000)
    assert "its part data.pkl has 5000000 bytes" in refused(content)


def test_files_of_other_kinds(file):
    torch.save({"a": torch.zeros(1)}, file, _use_new_zipfile_serialization=False)
    assert "PyTorch before 1.6 wrote it" in refused(file)
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("hello.txt", "hello")
    assert "torch.save did not make it" in refused(file)
    archive(file, named(a=tensor()), {"0": bytes(16)})
    file.write_bytes(file.read_bytes().replace(b"little", b"big\x00\x00\x00"))
    assert "big-endian" in refused(file)


@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_an_error(content):
    with contextlib.suppress(ValueError):
        pickle_data.read(io.BytesIO(content))


@given(st.lists(st.sampled_from(pickletools.opcodes), max_size=20), st.binary(max_size=40))
def test_any_instructions_are_data_or_an_error(opcodes, rest):
    with contextlib.suppress(ValueError):
        pickle_data.read(io.BytesIO("".join(o.code for o in opcodes).encode("latin-1") + rest))
