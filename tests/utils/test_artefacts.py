# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import save_file

from keytok_haystack.utils.artefacts import ArrayFile, ArtefactError, one_line, opened, read_npy, read_object

FLOATS = npst.floating_dtypes(sizes=(16, 32, 64), endianness="<")


def header_of(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def with_header(file: Path, header: dict[str, Any], data: bytes | None = None) -> Path:
    content = file.read_bytes()
    kept = content[8 + int.from_bytes(content[:8], "little") :] if data is None else data
    written = json.dumps(header).encode()
    file.write_bytes(len(written).to_bytes(8, "little") + written + kept)
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.float16)}
    save_file(arrays, tmp_path / "file.safetensors")
    return tmp_path / "file.safetensors"


@given(st.dictionaries(st.text("abc.", min_size=1), npst.arrays(FLOATS, npst.array_shapes(min_dims=0, min_side=0))))
@settings(max_examples=50)
def test_arrays_are_read_as_they_were_saved(arrays: dict[str, np.ndarray]):
    arrays = {name: np.where(np.isfinite(array), array, array.dtype.type(1)) for name, array in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file.safetensors"
        save_file({name: np.asarray(array) for name, array in arrays.items()}, file)
        stored = ArrayFile.open(file)
        assert stored.arrays.keys() == arrays.keys()
        for name, array in arrays.items():
            read = stored.read(name)
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(read, array)
            if array.ndim and len(array) > 1:
                np.testing.assert_array_equal(stored.read_rows(name, 1, len(array)), array[1:])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, dtype: type, value: float):
    save_file({"a": np.array([1, value], dtype=dtype), "b": np.ones(2, dtype)}, tmp_path / "file")
    stored = ArrayFile.open(tmp_path / "file")
    assert stored.read("b").tolist() == [1, 1]
    with pytest.raises(ArtefactError, match=r"array 'a' in .* not finite"):
        stored.read("a")


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0])
def test_bfloat16_that_is_not_finite_is_refused(tmp_path: Path, bits: int):
    (tmp_path / "file").touch()
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    with_header(tmp_path / "file", {"a": entry}, np.array([0x3F80, bits], "<u2").tobytes())
    with pytest.raises(ArtefactError, match="not finite"):
        ArrayFile.open(tmp_path / "file").read("a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [3, 3]}, "another size than its shape"),
        ({"shape": [-2, -3]}, "does not say of each array what it is"),
        ({"shape": [2.0, 3]}, "does not say of each array what it is"),
        ({"shape": [True, 6]}, "does not say of each array what it is"),
        ({"shape": [2**62, 2**62]}, "another size than its shape"),
        ({"shape": [2**64, 1]}, "does not say of each array what it is"),
        ({"shape": [1] * 100}, "does not say of each array what it is"),
        ({"shape": "23"}, "does not say of each array what it is"),
        ({"dtype": None}, "does not say of each array what it is"),
        ({"dtype": "F16"}, "another size than its shape"),
        ({"data_offsets": [8, 32], "shape": [2, 3]}, "overlap, or gaps"),
        ({"data_offsets": [0, 16], "shape": [4]}, "overlap, or gaps"),
        ({"data_offsets": [24, 0]}, "another size than its shape"),
        ({"data_offsets": [0]}, "does not say of each array what it is"),
        ({"data_offsets": [0, 2**63]}, "does not say of each array what it is"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(file: Path, change: dict[str, Any], message: str):
    header = header_of(file)
    first = min(header, key=lambda name: header[name]["data_offsets"])
    header[first] |= {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} if first == "a" else {}
    header[first] |= change
    with pytest.raises(ArtefactError, match=message):
        ArrayFile.open(with_header(file, header))


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**63, 2**64 - 1])
def test_a_length_of_the_header_that_does_not_fit_is_refused(file: Path, length: int):
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(ArtefactError, match="not a safetensors file"):
        ArrayFile.open(file)


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_a_file_that_is_cut_off_is_refused(file: Path, kept: int):
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ArtefactError, match=r"cut off|not a safetensors file"):
        ArrayFile.open(file)


def test_a_type_of_tomorrow_can_be_listed_but_not_read(file: Path):
    header = header_of(file)
    header["a"]["dtype"] = "F128"
    stored = ArrayFile.open(with_header(file, header))
    assert not stored.arrays["a"].is_float
    with pytest.raises(ArtefactError, match="of the type F128"):
        stored.read("a")


def fifo(file: Path) -> None:
    os.mkfifo(file)


def device(file: Path) -> None:
    file.symlink_to("/dev/zero")


def folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("make", [fifo, device, folder])
@pytest.mark.parametrize("read", [read_object, read_npy, ArrayFile.open])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, make: Any, read: Any):
    make(tmp_path / "file")
    with pytest.raises(ArtefactError, match="not a regular file"):
        read(tmp_path / "file")


@pytest.mark.parametrize("read", [read_object, read_npy, ArrayFile.open])
def test_a_file_of_a_terabyte_is_refused_without_reading_it(tmp_path: Path, read: Any):
    with (tmp_path / "file").open("wb") as sparse:
        sparse.truncate(1 << 40)
    tracemalloc.start()
    with pytest.raises(ArtefactError):
        read(tmp_path / "file")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 10**6, "nested too deeply"),
        (b'{"a":' * 10**6, "nested too deeply"),
        (b"[" + b"[]," * 3_000_000 + b"0]", "too many values"),
        (b"[1]", "not a JSON object"),
        (b"", "is not JSON"),
        (b"{\n\n!", "is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
    ],
    ids=["lists", "objects", "many", "list", "empty", "lines", "digits", "binary"],
)
def test_json_that_is_no_sane_object_is_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=message) as raised:
        read_object(tmp_path / "file.json")
    assert "\n" not in str(raised.value)


@given(npst.arrays(st.sampled_from([np.float16, np.float32, ">f8", np.int8]), npst.array_shapes()), st.booleans())
@settings(max_examples=50)
def test_npy_files_are_read_as_numpy_reads_them(array: np.ndarray, in_columns: bool):
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "file.npy"
        np.save(file, np.asfortranarray(array) if in_columns else array)
        np.testing.assert_array_equal(read_npy(file), array)


@pytest.mark.parametrize(
    "shape", ["(1000000000000, 8)", "(4611686018427387904, 8)", "(-4, 8)", "(4, 9)", "4", "(4, 8.0)", "()" * 1000]
)
def test_an_npy_file_whose_shape_does_not_fit_is_refused_without_allocating_it(tmp_path: Path, shape: str):
    np.save(tmp_path / "file.npy", np.ones((4, 8)))
    content = (tmp_path / "file.npy").read_bytes()
    header = content[10 : 10 + content[8]].replace(b"(4, 8)", shape.encode())
    (tmp_path / "file.npy").write_bytes(content[:8] + len(header).to_bytes(2, "little") + header + content[128:])
    with pytest.raises(ArtefactError, match="not an array of numbers"):
        read_npy(tmp_path / "file.npy")


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(ArtefactError, match="not the name of a file"), opened(Path("a\0b")):
        pass


TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@given(TEXT | st.builds(ValueError, TEXT))
def test_messages_are_one_line_of_readable_length(said: str | ValueError):
    line = one_line(said)
    assert line.encode()
    assert len(line) <= 210
    assert len(line.splitlines()) == 1
