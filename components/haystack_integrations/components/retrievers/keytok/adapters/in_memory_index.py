# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Collection, Mapping
from operator import itemgetter
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from haystack import Document, logging
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_integrations.components.embedders.keytok.conversion import stored_key_tokens
from keytok_haystack import InvertedIndex

_logger = logging.getLogger(__name__)


class StoreIndex:
    """
    Inverted index of an `InMemoryDocumentStore` that is kept in step with it.

    The store has neither a version nor a hook, and its `update_by_filter` changes documents in place. Before each
    search, the store's documents and their key tokens are therefore compared with those indexed, by identity, which
    takes 5 to 7 ms for 100,000 documents, and only the changed ones are indexed. Two changes are not noticed until the
    document is written again: an assignment to an attribute of a stored document (against which Haystack warns), and a
    change inside the dict of its key tokens.

    Documents without key tokens but with a `sparse_embedding` are indexed under its indices, as strings. Hold `lock`
    while the index is used.
    """

    def __init__(self, store: InMemoryDocumentStore, field: str, *, with_bm25: bool) -> None:
        """
        Create an empty index.

        :param store: Document store.
        :param field: Key of `meta` that holds a document's key tokens.
        :param with_bm25: Whether contents are indexed for BM25, too.
        """
        self.lock = Lock()
        self._store = store
        self._field = field
        self._index = InvertedIndex(with_bm25=with_bm25)
        self._documents: list[Document] = []
        self._metas: list[dict[str, Any]] = []
        self._fields: list[Any] = []
        self._unreadable: dict[str, Any] = {}

    def current(self) -> InvertedIndex:
        """Return the index, in step with the store."""
        documents = list(self._store.storage.values())
        if not self._is_current(documents):
            self._follow(documents)
        return self._index

    def ids_with(self, keys: Collection[str]) -> set[str]:
        """Return the ids of the indexed documents that have all of these key tokens."""
        required = set(keys)
        return {document.id for document in self._documents if self.tokens(document).keys() >= required}

    def tokens(self, document: Document) -> Mapping[str, float]:
        """Return the key tokens of a document; none if its field holds something else, of which is warned once."""
        field = document.meta.get(self._field)
        if document.id in self._unreadable:
            if field is self._unreadable[document.id]:
                return {}
            del self._unreadable[document.id]
        try:
            return stored_key_tokens(document, self._field)
        except (TypeError, ValueError) as error:
            self._set_aside(document, error)
            return {}

    def _set_aside(self, document: Document, error: Exception) -> None:
        """Warn of a document whose key tokens are none: one must not stop the search for all others."""
        _logger.warning(
            "A document is not found by its key tokens until it is written with such: {error}", error=str(error)
        )
        self._unreadable[document.id] = document.meta.get(self._field)

    def _is_current(self, documents: list[Document]) -> bool:
        """Return whether the store's documents and their key tokens are the very objects that are indexed."""
        if len(documents) != len(self._documents):
            return False
        if not documents:
            return True
        # A write moves its document to the end, so only the last can have been written again in place. Checking it
        # first also avoids comparing equal copies below: comparing lists of the same objects is quick.
        last = documents[-1]
        if last is not self._documents[-1] or self.tokens(last) != self._index.tokens_of(last.id):
            return False
        return documents == self._documents and self._read_fields(self._metas) == self._fields

    def _read_fields(self, metas: list[dict[str, Any]]) -> list[Any]:
        try:
            return list(map(itemgetter(self._field), metas))
        except KeyError:
            return [meta.get(self._field) for meta in metas]

    def _follow(self, documents: list[Document]) -> None:
        """Add, replace and remove documents of the index that differ from the store's."""
        metas = [document.meta for document in documents]
        fields = self._read_fields(metas)
        unmoved = self._unmoved(documents, fields)
        contents = {document.id: document.content for document in self._documents}
        changed = [
            document
            for document, is_unmoved in zip(documents, unmoved, strict=True)
            if not is_unmoved
            and (
                document.id not in contents
                or self.tokens(document) != self._index.tokens_of(document.id)
                or (self._index.has_bm25 and document.content != contents[document.id])
            )
        ]
        try:
            self._add(changed)
        except (TypeError, ValueError):
            for document in changed:
                self._add_what_can_be_read(document)
        present = {document.id for document in documents}
        self._index.remove([document_id for document_id in contents if document_id not in present])
        self._documents, self._metas, self._fields = documents, metas, fields

    def _add(self, documents: list[Document]) -> None:
        self._index.add(
            [document.id for document in documents],
            [self.tokens(document) for document in documents],
            [document.content or "" for document in documents],
        )

    def _add_what_can_be_read(self, document: Document) -> None:
        """Add a document, without its key tokens if their weights are unusable."""
        try:
            self._add([document])
        except (TypeError, ValueError) as error:
            self._set_aside(document, error)
            self._add([document])

    def _unmoved(self, documents: list[Document], fields: list[Any]) -> list[bool]:
        """Return whether each document is where it was, with its key tokens: writes move documents to the end."""
        unmoved = []
        previous = zip(self._documents, self._fields, strict=True)
        for document, field in zip(documents, fields, strict=True):
            for old, old_field in previous:
                if old is document:
                    unmoved.append(old_field is field)
                    break
            else:
                unmoved.append(False)
        return unmoved


_indices: WeakValueDictionary[tuple[str, str, bool], StoreIndex] = WeakValueDictionary()
_lock = Lock()


def index_of(store: InMemoryDocumentStore, field: str, *, with_bm25: bool) -> StoreIndex:
    """
    Return the index of a store, which all retrievers over it share while one of them uses it.

    :param store: Document store; those with the same `index` have the same documents.
    :param field: Key of `meta` that holds a document's key tokens.
    :param with_bm25: Whether BM25 will be asked for.
    """
    key = (store.index, field, with_bm25)
    with _lock:
        index = _indices.get(key)
        if index is None:
            index = _indices[key] = StoreIndex(store, field, with_bm25=with_bm25)
        return index
