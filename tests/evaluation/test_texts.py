# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Files as other software writes them, read back; and files that are damaged."""

import csv
import gzip
import json
import logging
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack.evaluation import Collection, CollectionError, TextFields, read_texts, stream_texts

# all that text files can hold: no half surrogate pairs, and no NUL
TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=5)
AWKWARD = ["one", 'a "quoted" word', "two\nlines", "a,b;c\td", "", " spaces ", "ünï 🙂", '"', "it's", "\\N"]


def opened(file: Path, newline: str | None = None):
    return (gzip.open if file.suffix == ".gz" else open)(file, "wt", encoding="utf-8", newline=newline)


def write(file: Path, records: list[dict]) -> Path:
    """Write records as usual software does, in the format that the name of the file says."""
    kind = file.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), file)
    elif kind in ("csv", "tsv"):
        with opened(file, newline="") as stream:
            writer = csv.DictWriter(stream, list(records[0]), delimiter="," if kind == "csv" else "\t")
            writer.writeheader()
            writer.writerows(records)
    else:
        with opened(file) as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records)
    return file


FORMATS = [
    "x.csv",
    "x.tsv",
    "x.CSV",
    "x.csv.gz",
    "x.tsv.gz",
    "x.jsonl",
    "x.ndjson",
    "x.json",
    "x.jsonl.gz",
    "x.parquet",
]


@pytest.mark.parametrize("name", FORMATS)
def test_texts_are_read_as_they_were_written(name, tmp_path):
    records = [{"_id": str(number), "title": "", "text": text} for number, text in enumerate(AWKWARD)]
    assert read_texts(write(tmp_path / name, records)) == AWKWARD


@pytest.mark.parametrize("name", ["x.csv", "x.tsv.gz", "x.jsonl", "x.parquet"])
@given(texts=TEXTS)
def test_any_texts_are_read_as_they_were_written(name, texts, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / name
    assert read_texts(write(file, [{"n": str(n), "text": text} for n, text in enumerate(texts)])) == texts


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_fields_are_named(name, tmp_path):
    records = [
        {"id": 7, "text": "not this", "head": "Waves", "body": "in air"},
        {"id": 8, "text": "", "head": "", "body": "b"},
    ]
    file = write(tmp_path / name, records)
    assert read_texts(file, TextFields(["body"])) == ["in air", "b"]
    assert read_texts(file, TextFields(["body", "head"], "id")) == ["in air Waves", "b"]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_a_title_comes_before_a_text_or_content(name, tmp_path):
    records = [{"title": "Title", "content": "one"}, {"title": "", "content": "two"}]
    assert read_texts(write(tmp_path / name, records)) == ["Title one", "two"]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
@pytest.mark.parametrize("fields", [TextFields(), TextFields(["boby"]), TextFields(["body"], "boby")])
def test_an_unknown_field_is_refused_with_those_that_are_there(name, fields, tmp_path):
    file = write(tmp_path / name, [{"key": "1", "body": "b"}])
    with pytest.raises(CollectionError, match=r"'key', 'body'") as caught:
        read_texts(file, fields)
    assert name in str(caught.value)
    assert ("boby" if "boby" in (*fields.text, fields.id) else "'text' or 'content'") in str(caught.value)


def test_json_objects_may_lack_a_field_but_not_all(tmp_path):
    file = write(tmp_path / "x.jsonl", [{"head": "h", "body": "b"}, {"body": "c"}, {"head": None, "body": "d"}])
    assert read_texts(file, TextFields(["head", "body"])) == ["h b", "c", "d"]
    with pytest.raises(CollectionError, match=r"Line 2 of .*x\.jsonl' has no 'head'"):
        read_texts(file, TextFields(["head"]))
    with pytest.raises(CollectionError, match=r"No line of .*x\.jsonl' has a field 'hat'.*'head', 'body'"):
        read_texts(file, TextFields(["hat", "body"]))


def test_a_text_file_has_a_text_per_line(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\n  two  \nthr\xc3\xa9e")
    assert read_texts(tmp_path / "x.txt") == ["one", "  two  ", "thrée"]


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path):
    (tmp_path / "excel.csv").write_bytes("text,n\r\nünï,1\r\n".encode("utf-8-sig"))
    assert read_texts(tmp_path / "excel.csv") == ["ünï"]


def test_long_texts_are_read(tmp_path):
    text = "wave " * 100_000  # more than csv takes by default
    assert read_texts(write(tmp_path / "x.csv", [{"text": text}])) == [text]


DAMAGED = {
    "nul.csv": (b"id,text\n1,fine\n2,a\0b\n", "Line 3"),
    "utf-16.csv": ("text\nwave\n".encode("utf-16"), "UTF-8"),
    "open.csv": (b'id,text\n1,fine\n2,"never closed\n3,x\n', "line 3"),
    "stray.tsv": (b'id\ttext\n1\t"Foo" is a word\n', "line 2"),
    "ragged.csv": (b'id,text\n1,"two\nlines"\n2,b,c\n', "line 4"),
    "short.csv": (b"id,text\n1\n", "1 cells"),
    "twice.csv": (b"text,text\na,b\n", "several columns 'text'"),
    "semicolons.csv": (b"id;text\n1;a\n", "'id;text'"),
    "empty.csv": (b"", "no texts"),
    "header.csv": (b"id,text\n", "no texts"),
    "empty.jsonl.gz": (gzip.compress(b""), "no texts"),
    "array.json": (b'[{"text": "a"}]', "Line 1"),
    "deep.jsonl": (b"[" * 100_000, "Line 1"),
    "plain.csv.gz": (b"text\na\n", "gzip"),
    "cut.jsonl.gz": (gzip.compress(b'{"text": "wave"}\n' * 9)[:-9], "gzip"),
    "flipped.jsonl.gz": (gzip.compress(b'{"text": "wave"}\n')[:-6] + b"\0" * 6, "gzip"),
    "deflate.jsonl.gz": (gzip.compress(b"")[:10] + b"\xff" * 30, "gzip"),
    "no.parquet": (b"PAR1 or not", "Parquet"),
    "nothing.parquet": (b"", "Parquet"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_in_one_sentence(name, tmp_path):
    content, what = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CollectionError) as caught:
        read_texts(tmp_path / name)
    assert name in str(caught.value)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.txt", "x.jsonl", "x.parquet"])
def test_a_file_that_is_not_there_is_named(name, tmp_path):
    with pytest.raises(CollectionError, match=f"There is no file '.*{name}'"):
        read_texts(tmp_path / name)


def test_a_parquet_file_that_is_cut_off_is_refused(tmp_path):
    file = write(tmp_path / "x.parquet", [{"text": "wave " * n} for n in range(99)])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CollectionError, match=r"x\.parquet' is no Parquet file"):
        read_texts(file)


@pytest.mark.parametrize("value", [5, b"bytes", ["list"]])
def test_a_parquet_column_without_texts_is_refused(value, tmp_path):
    file = write(tmp_path / "x.parquet", [{"text": value}])
    with pytest.raises(CollectionError, match=r"Row 1 of .*x\.parquet' has no text in 'text'"):
        read_texts(file)


def test_a_cell_without_a_value_is_an_empty_text(tmp_path):
    assert read_texts(write(tmp_path / "x.parquet", [{"text": "a"}, {"text": None}])) == ["a", ""]


def test_a_compressed_file_that_unpacks_to_one_endless_line_is_refused_in_little_memory(tmp_path):
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb", compresslevel=1) as stream:
        for _ in range(200):
            stream.write(b" " * 2**20)
    tracemalloc.start()
    with pytest.raises(CollectionError, match=r"Line 1 .* longer"):
        read_texts(tmp_path / "bomb.jsonl.gz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 190 * 2**20


@pytest.mark.parametrize("name", ["x.csv.gz", "x.jsonl.gz", "x.parquet"])
def test_texts_that_are_streamed_are_not_in_memory_together(name, tmp_path):
    text = "wave " * 2000
    file = write(tmp_path / name, [{"text": text, "n": n} for n in range(2000)])
    tracemalloc.start()
    assert sum(len(each) for each in stream_texts(file)) == 2000 * len(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2000 * len(text) / 2


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_an_id_with_two_texts_is_refused_and_repetitions_are_counted(name, tmp_path, caplog):
    unit = "rows" if name == "x.parquet" else "lines"
    records = [{"key": n, "text": text} for n, text in [(1, "a"), (2, "b"), (1, "a"), (2, "b"), (3, "a")]]
    file = write(tmp_path / name, records)
    with caplog.at_level(logging.WARNING):
        assert read_texts(file, TextFields(id="key")) == ["a", "b", "a", "b", "a"]
    assert [record.getMessage() for record in caplog.records] == [
        f"2 {unit} of '{file}' repeat the id and the text of an earlier one."
    ]
    file = write(tmp_path / name, [*records, {"key": 2, "text": "c"}])
    first = 3 if name == "x.csv" else 2  # after the names of the columns
    with pytest.raises(CollectionError, match=f"{unit.capitalize()} {first} and {first + 4} of .* the id '2'"):
        read_texts(file, TextFields(id="key"))
    assert read_texts(file)[-1] == "c"


def test_a_record_without_the_id_is_refused(tmp_path):
    file = write(tmp_path / "x.jsonl", [{"key": 1, "text": "a"}, {"text": "b"}])
    with pytest.raises(CollectionError, match=r"Line 2 of .* has no id 'key'"):
        read_texts(file, TextFields(id="key"))


def collection(folder: Path, corpus: list[dict], suffix: str = ".jsonl") -> Path:
    (folder / "qrels").mkdir(parents=True)
    write(folder / f"corpus{suffix}", corpus)
    write(folder / f"queries{suffix}", [{"id": "q", "text": "wave"}])
    (folder / "qrels/test.tsv").write_text("q\ta\t1\n")
    return folder


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("key", ["_id", "id"])
def test_a_collection_is_read_by_its_ids(key, suffix, tmp_path):
    folder = collection(tmp_path / "x", [{key: "a", "text": "one"}, {key: "b", "text": "two"}], suffix)
    assert Collection.load(folder, "test").documents == {"a": "one", "b": "two"}
    assert Collection.load(folder, "test").queries == {"q": "wave"}
    assert read_texts(folder) == ["one", "two"]


def test_a_document_that_is_there_twice_counts_once(tmp_path, caplog):
    folder = collection(tmp_path / "x", [{"_id": "a", "text": "one"}, {"_id": "a", "text": "one"}])
    assert Collection.load(folder, "test").documents == {"a": "one"}
    assert [record.getMessage().partition(" of ")[0] for record in caplog.records] == ["1 lines"]


def test_two_documents_with_one_id_are_refused(tmp_path):
    folder = collection(
        tmp_path / "x", [{"_id": "a", "text": "one"}, {"_id": "b", "text": ""}, {"_id": "a", "text": "1"}]
    )
    with pytest.raises(CollectionError, match=r"Lines 1 and 3 of '.*corpus\.jsonl' have the id 'a', but two texts"):
        Collection.load(folder, "test")
