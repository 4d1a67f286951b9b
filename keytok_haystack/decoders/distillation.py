# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation of a decoder: sparse scores between texts learn to follow dense ones (`refine`). Needs torch."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array, vstack
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, normalize, softmax

from keytok_haystack.sparse_vectors.rows import add_rows, row_norms, scale_rows, top_k
from keytok_haystack.utils.device import usable_device
from keytok_haystack.utils.progress import progress_of
from keytok_haystack.weighting import Weighting

STEPS = 150
_BATCH = 128
_NEIGHBOURS = 32
_LEARNING_RATE = 0.01  # in units of the standard deviation of the decoder's entries
_TEMPERATURE = 0.05  # of cosine similarities
_SPARSE_SHARE = 0.7  # share of the decoder's first scores in the teacher's
_HELD_OUT = 0.1
_CHECK_EVERY = 25
_PATIENCE = 2  # checks
_TINY = 1e-12


@dataclass(frozen=True)
class TrainingData:
    """
    Texts that refinement learns from, as arrays.

    :param prepared: Shape `(n, d)`, prepared embeddings: the decoder's input.
    :param dense: Shape `(n, d)`, of unit length; their products are the dense similarities.
    :param literals: Shape `(n, v)`, share of the documents' logits that comes from their literal tokens.
    """

    prepared: NDArray[np.float32]
    dense: NDArray[np.float32]
    literals: csr_array

    def __len__(self) -> int:
        """Return the number of texts, `n`."""
        return len(self.prepared)


def distill(
    weight: NDArray[np.float32],
    data: TrainingData,
    weighting: Weighting,
    *,
    seed: int,
    device: str | None,
    progress_bar: bool,
) -> NDArray[np.float32]:
    """
    Refine a decoder's matrix; `refine` explains how.

    :param weight: Shape `(v, d)`.
    :param data: Texts to learn from, at least 16.
    :param weighting: Number of tokens of documents and queries, and rules by which logits become weights.
    :param seed: Seed of the choice of held-out texts and of batches.
    :param device: Device to compute on, as torch names it; by default a GPU if there is one.
    :param progress_bar: Whether to show a progress bar.
    :returns: Shape `(v, d)`: of all matrices that were checked, the best one on the held-out texts.
    :raises ValueError: The device cannot be used.
    """
    student = _Student(weight, data, weighting, device)
    order = np.random.default_rng(seed).permutation(len(data))
    n_held_out = max(4, min(512, round(_HELD_OUT * len(order))))
    held_out, train = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
    neighbours = _neighbours(data.dense, train)
    teacher = _Teacher(weight, data, weighting)
    held_out_scores = teacher(held_out, held_out)
    student.match(held_out_scores, held_out)
    losses, best = [student.test(held_out, held_out_scores)], student.weight.detach().clone()

    with progress_of("Refining", "steps", shown=progress_bar, total=STEPS, leave=False) as bar:
        for step in range(STEPS):
            if min(losses) not in losses[-_PATIENCE:]:
                break  # the held-out texts have stopped improving
            random = np.random.default_rng([seed, step])
            queries = np.sort(random.choice(len(train), min(_BATCH, len(train)), replace=False))
            near = neighbours[queries, random.integers(neighbours.shape[1], size=len(queries))]
            queries, candidates = train[queries], np.union1d(train[queries], train[near])
            student.learn(queries, candidates, teacher(queries, candidates), rate=_rate(step))
            bar.update()
            if (step + 1) % _CHECK_EVERY == 0:
                losses.append(student.test(held_out, held_out_scores))
                if losses[-1] == min(losses):
                    best = student.weight.detach().clone()
                bar.set_postfix_str(f"held out {losses[0]:.4f} -> {losses[-1]:.4f}")
    refined: NDArray[np.float32] = best.cpu().numpy()
    return refined


def _rate(step: int) -> float:
    """Return the learning rate: a short linear warm-up, then a cosine that falls to a twentieth."""
    return _LEARNING_RATE * min(1.0, (step + 1) / 20) * max(0.05, 0.5 + 0.5 * math.cos(math.pi * step / STEPS))


def _neighbours(dense: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions within `rows` of each one's nearest others, shape `(len(rows), at most 32)`."""
    chosen = torch.from_numpy(dense[rows])
    k = min(_NEIGHBOURS, len(rows) - 1)
    found = []
    for start in range(0, len(rows), 1024):
        similarities = chosen[start : start + 1024] @ chosen.T
        similarities[torch.arange(len(similarities)), torch.arange(start, start + len(similarities))] = -torch.inf
        found.append(torch.topk(similarities, k, dim=1).indices.numpy())
    return np.concatenate(found)


class _Teacher:
    """
    Target scores between texts: dense similarities plus the sparse scores of the decoder before refinement.

    The latter count twice as many tokens, so that they know more than the student can say. They are scaled to the
    standard deviation of the dense similarities over pairs of texts.
    """

    def __init__(self, weight: NDArray[np.float32], data: TrainingData, weighting: Weighting) -> None:
        self._dense = torch.from_numpy(data.dense)  # numpy's threads and torch's would wait for each other
        queries, documents = [], []
        for start in range(0, len(data), 256):
            logits = data.prepared[start : start + 256] @ weight.T
            queries.append(top_k(logits, 2 * max(weighting.m_query, 1)))
            add_rows(logits, data.literals[start : start + 256])
            documents.append(weighting.document_weights(top_k(logits, 2 * weighting.k_document)))
        aligned = csr_array(vstack(queries, format="csr"))
        self._queries = scale_rows(aligned, 1 / np.maximum(row_norms(aligned), _TINY))
        self._documents = csr_array(vstack(documents, format="csr"))
        some = np.arange(min(len(data), 512))
        others = ~np.eye(len(some), dtype=bool)
        dense, sparse = self._scores(some, some)
        self._ratio = np.float32(dense[others].std() / max(sparse[others].std(), _TINY))

    def __call__(self, queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return scores, shape `(queries, candidates)`."""
        dense, sparse = self._scores(queries, candidates)
        scores: NDArray[np.float32] = (1 - _SPARSE_SHARE) * dense + _SPARSE_SHARE * self._ratio * sparse
        return scores

    def _scores(
        self, queries: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        dense = self._dense[torch.from_numpy(queries)] @ self._dense[torch.from_numpy(candidates)].T
        return dense.numpy(), (self._queries[queries] @ self._documents[candidates].T).toarray()


class _Student:
    """Decoder that learns to give the teacher's scores."""

    def __init__(
        self, weight: NDArray[np.float32], data: TrainingData, weighting: Weighting, device: str | None
    ) -> None:
        self._device = usable_device(device)
        self._weighting = weighting
        self._data = data
        self.weight = torch.tensor(weight, device=self._device, requires_grad=True)
        # distributions over candidates depend on the scale of scores, which is arbitrary: it is learned, too
        self.log_scale = torch.zeros((), device=self._device, requires_grad=True)
        self._unit = float(weight.std())
        self.parameters = {"weight": self.weight, "log_scale": self.log_scale}
        self.optimizer = torch.optim.Adam([{"params": [parameter]} for parameter in self.parameters.values()])

    def match(self, target_scores: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Set the scale of scores to where the loss is least, so that any further decrease is the decoder's merit."""
        with torch.no_grad():
            scores = self._scores(rows, rows)

            def loss(log_scale: float) -> float:
                return self._divergence(math.exp(log_scale) * scores, rows, rows, target_scores).item()

            self.log_scale.fill_(minimize_scalar(loss, bounds=(-10, 10), method="bounded").x)

    def loss(
        self, queries: NDArray[np.int64], candidates: NDArray[np.int64], target_scores: NDArray[np.float32]
    ) -> Tensor:
        """Return the mean over queries of the Kullback-Leibler divergence from the teacher."""
        return self._divergence(
            self.log_scale.exp() * self._scores(queries, candidates), queries, candidates, target_scores
        )

    def _divergence(
        self,
        scores: Tensor,
        queries: NDArray[np.int64],
        candidates: NDArray[np.int64],
        target_scores: NDArray[np.float32],
    ) -> Tensor:
        itself = self._to_device(queries[:, None] == candidates[None, :])
        target = softmax((self._to_device(target_scores) / _TEMPERATURE).masked_fill(itself, -1e9), dim=1)
        return kl_div(log_softmax(scores.masked_fill(itself, -1e9), dim=1), target, reduction="batchmean")

    def test(self, rows: NDArray[np.int64], target_scores: NDArray[np.float32]) -> float:
        """Return the loss over texts that are queries for each other."""
        with torch.no_grad():
            return self.loss(rows, rows, target_scores).item()

    def learn(
        self,
        queries: NDArray[np.int64],
        candidates: NDArray[np.int64],
        target_scores: NDArray[np.float32],
        *,
        rate: float,
    ) -> None:
        """Take one step of Adam (Kingma and Ba 2015)."""
        for group, unit in zip(self.optimizer.param_groups, (self._unit, 1.0), strict=True):
            group["lr"] = rate * unit
        self.optimizer.zero_grad()
        self.loss(queries, candidates, target_scores).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _scores(self, queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> Tensor:
        """
        Return sparse scores, shape `(queries, candidates)`; the queries are among the candidates.

        The choice of the top tokens passes gradients straight through to the chosen logits.
        """
        logits = self._to_device(self._data.prepared[candidates]) @ self.weight.T
        literals = self._data.literals[candidates]
        joined = logits + self._to_device(literals.toarray())
        chosen = _chosen(joined, self._weighting.k_document)
        level = chosen.amax(dim=1, keepdim=True).clamp_min(_TINY) ** self._weighting.normalization
        # a root has no slope at 0
        documents = torch.where(chosen > 0, chosen.clamp_min(_TINY) / level, 1.0) ** self._weighting.exponent
        asked = logits[self._to_device(np.searchsorted(candidates, queries))]
        aligned = _chosen(asked, max(self._weighting.m_query, 1))
        return normalize(aligned, dim=1) @ (documents * (chosen > 0)).T

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _chosen(logits: Tensor, k: int) -> Tensor:
    """Keep the `k` largest positive entries of each row."""
    values, places = torch.topk(logits, min(k, logits.shape[1]), dim=1)
    return torch.zeros_like(logits).scatter(1, places, values.clamp_min(0))
