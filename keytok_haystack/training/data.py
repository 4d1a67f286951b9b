# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The texts of a training, and the test collections that its result is evaluated on."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from keytok_haystack.evaluation import Collection, TextFields, stream_texts
from keytok_haystack.utils.checks import check_not_one_string, check_texts
from keytok_haystack.utils.sampling import sampled


def distinct_texts(data: Iterable[str | Path], fields: TextFields, size: int | None = None) -> list[str]:
    """
    Return the texts to train on, each once, without empty ones.

    :param data: Texts as strings, or as `Path`s of files and folders, as for `read_texts`.
    :param fields: Fields of the files with the texts and ids.
    :param size: Maximum number of texts, drawn at random from all of them; by default all.
    :raises CollectionError: A file is missing or malformed.
    :raises ValueError: There are no texts.
    :raises TypeError: `data` is one string.
    """
    check_not_one_string(data)
    data = list(data)
    every = chain.from_iterable(stream_texts(each, fields) if isinstance(each, Path) else [each] for each in data)
    given = list(every) if size is None else sampled(every, size)[0]
    check_texts(given)
    texts = list(dict.fromkeys(text for text in given if text.strip()))
    if not texts:
        files = ", ".join(str(each) for each in data if isinstance(each, Path))
        msg = f"There are no texts to train on: {files or 'the list'} has none, or only empty ones."
        raise ValueError(msg)
    return texts


def distinct_collections(data: Iterable[Collection | Path]) -> list[Collection]:
    """
    Return the test collections to evaluate on.

    :param data: Collections, or `Path`s of folders in BEIR's layout, whose judgements are those of "test", or the only
        ones that the folder has.
    :raises CollectionError: A file is missing or malformed.
    :raises ValueError: Two collections have the same name.
    """
    collections: dict[str, Collection] = {}
    for each in data:
        collection = _load(each) if isinstance(each, Path) else each
        if collections.setdefault(collection.name, collection) is not collection:
            msg = f"Two collections are called '{collection.name}': rename one of the folders."
            raise ValueError(msg)
    return list(collections.values())


def _load(folder: Path) -> Collection:
    splits = [file.stem for file in sorted((folder / "qrels").glob("*.tsv"))]
    return Collection.load(folder, splits[0] if len(splits) == 1 else "test")
