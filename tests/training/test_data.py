# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import csv
from pathlib import Path

from keytok_haystack.evaluation import TextFields
from keytok_haystack.training.data import distinct_texts


def test_texts_of_files_and_strings_are_sampled_together(tmp_path: Path):
    sources = []
    for name in ("a", "b"):
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["body"], *([f"{name}\n{n}"] for n in range(50))])
        sources.append(tmp_path / f"{name}.csv")
    texts = [f"{name}\n{n}" for name in ("a", "b") for n in range(50)]
    fields = TextFields(["body"])
    assert distinct_texts([*sources, "a\n3", " ", "last"], fields) == [*texts, "last"]
    sample = distinct_texts(sources, fields, 40)
    assert len(sample) == 40
    assert sample == [text for text in texts if text in set(sample)]
    assert {text[0] for text in sample} == {"a", "b"}
