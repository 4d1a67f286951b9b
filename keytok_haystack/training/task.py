# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""From texts and an embedder to what its embeddings should say of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.embedding_space import Spectrum
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rows import rows_to_dicts
from keytok_haystack.training.settings import TargetRule
from keytok_haystack.training.targets import data_driven, informative, mixture, model_derived

_HELD_OUT_SHARE, _MOST_HELD_OUT = 0.05, 256
_ALIGNED = 100  # aligned tokens of a text, of which filters leave some


class NoTargetsError(ValueError):
    """Filters have left nothing to learn from."""


def make_targets(
    rule: TargetRule,
    head: KeyTokenModel,
    texts: Sequence[str],
    pool: Callable[[Sequence[str]], NDArray[np.float32]],
) -> csr_array:
    """
    Return what the embeddings of texts should say.

    :param rule: How targets are made.
    :param head: What reads the embeddings, as `head_of` gives it.
    :param texts: The `n` texts.
    :param pool: The embedder before training, from texts to pooled hidden states, shape `(n, d)`, not scaled, since
        their length says how sure the head is; not called for targets of texts' own tokens.
    :returns: Shape `(n, V)`, rows of sum 1, but for texts of which filters have left nothing: theirs are empty.
    :raises NoTargetsError: Filters have left targets of fewer than 2 texts.
    """
    features = head.vocabulary.features[: len(head.decoder)]  # those without a row in the head come last

    def kept(occurrences: csr_array) -> NDArray[np.bool_]:
        return informative(occurrences, features, min_df=rule.min_df, max_df=rule.max_df, stop_words=rule.stop_words)

    made = []
    if rule.kind != "model":
        counts = csr_array(head.vocabulary.literal_counts(texts)[:, : len(features)])
        made.append(data_driven(counts, kept(counts)))
    if rule.kind != "data":
        aligned = _without_pc1(head.decoder, states := pool(texts)).top_k(states, _ALIGNED)
        made.append(model_derived(aligned, kept(aligned)))
    targets = made[0] if len(made) == 1 else mixture(made[0], made[1], rule.share)
    if np.count_nonzero(np.diff(targets.indptr)) < 2:
        msg = (
            f"Of {len(texts):,} texts there is hardly a target left: a token has to be in at least {rule.min_df} of "
            f"them (min-df), in at most {rule.max_df:.0%} of them (max-df), and no stop word. Use longer or more "
            "texts, or loosen the filters."
        )
        raise NoTargetsError(msg)
    return targets


def split(targets: csr_array, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on, and a twentieth, at most 256, to hold out: of those that have a target."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(targets.indptr)))
    size = max(1, min(round(_HELD_OUT_SHARE * len(order)), _MOST_HELD_OUT))
    return np.sort(order[size:]), np.sort(order[:size])


def described(targets: csr_array, head: KeyTokenModel, rows: Sequence[int]) -> list[dict[str, float]]:
    """Return some rows of targets as `{feature: share}`, largest first."""
    return rows_to_dicts(csr_array(targets[list(rows)]), head.vocabulary.features)


def _without_pc1(decoder: TokenDecoder, states: NDArray[np.float32]) -> TokenDecoder:
    """Return the decoder that reads hidden states, shape `(n, d)`, without their first principal component."""
    removal = Spectrum.from_embeddings(states).removal()
    transform = decoder.preparation.transform
    return TokenDecoder(decoder.weight, replace(removal, normalize=False, transform=transform))
