# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation of a decoder: sparse scores between texts learn to follow dense ones. Needs torch."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array, vstack
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, normalize, softmax
from tqdm import tqdm

from keytok_haystack.sparse_vectors.rows import add_rows, row_norms, scale_rows, top_k
from keytok_haystack.utils.device import usable_device
from keytok_haystack.weighting import Weighting

STEPS = 150
_BATCH = 128
_NEIGHBOURS = 32
_LEARNING_RATE = 0.01  # in units of the standard deviation of the decoder's entries
_TEMPERATURE = 0.05  # of cosine similarities
_OWN_SHARE = 0.7  # of the decoder's first scores in what is taught
_HELD_OUT = 0.1
_CHECK_EVERY = 25
_PATIENCE = 2  # checks
_TINY = 1e-12


@dataclass(frozen=True)
class Texts:
    """
    What refinement learns from.

    :param prepared: Shape `(n, d)`, what the decoder multiplies.
    :param dense: Shape `(n, d)`, of unit length; their products are the dense similarities.
    :param literals: Shape `(n, v)`, what a document's own tokens add to its logits.
    """

    prepared: NDArray[np.float32]
    dense: NDArray[np.float32]
    literals: csr_array

    def __len__(self) -> int:
        """Return the number of texts, `n`."""
        return len(self.prepared)


def refine(
    weight: NDArray[np.float32],
    texts: Texts,
    weighting: Weighting,
    *,
    seed: int,
    device: str | None,
    checkpoint: Path | None,
    progress_bar: bool,
) -> NDArray[np.float32]:
    """
    Refine a decoder's matrix; `TokenDecoder.refine` explains how.

    :param weight: Shape `(v, d)`.
    :returns: Shape `(v, d)`: of all that were checked, the matrix that is best on the texts held out.
    """
    student = _Student(weight, texts, weighting, device)
    order = np.random.default_rng(seed).permutation(len(texts))
    n_held_out = max(4, min(512, round(_HELD_OUT * len(order))))
    held_out, train = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
    neighbours = _neighbours(texts.dense, train)
    teacher = _Teacher(weight, texts, weighting)
    trial = teacher(held_out, held_out)
    student.match(trial, held_out)
    state = _Checkpoint(checkpoint, _digest(weight, texts, weighting, seed))
    losses, best = state.load(student) or ([student.test(held_out, trial)], student.weight.detach().clone())

    first = (len(losses) - 1) * _CHECK_EVERY
    with tqdm(total=STEPS, initial=first, desc="Refining", disable=not progress_bar, leave=False) as bar:
        for step in range(first, STEPS):
            if min(losses) not in losses[-_PATIENCE:]:
                break  # what is held out has stopped improving
            random = np.random.default_rng([seed, step])
            queries = np.sort(random.choice(len(train), min(_BATCH, len(train)), replace=False))
            near = neighbours[queries, random.integers(neighbours.shape[1], size=len(queries))]
            queries, candidates = train[queries], np.union1d(train[queries], train[near])
            student.learn(queries, candidates, teacher(queries, candidates), rate=_rate(step))
            bar.update()
            if (step + 1) % _CHECK_EVERY == 0:
                losses.append(student.test(held_out, trial))
                if losses[-1] == min(losses):
                    best = student.weight.detach().clone()
                bar.set_postfix_str(f"held out {losses[0]:.4f} -> {losses[-1]:.4f}")
                state.save(student, losses, best)
    state.remove()
    refined: NDArray[np.float32] = best.cpu().numpy()
    return refined


def _rate(step: int) -> float:
    """The learning rate: a short linear warm-up, then a cosine that falls to a twentieth."""
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
    What the scores of texts for each other should be: dense similarities plus the decoder's own first scores.

    The latter count twice as many tokens, so that they know more than the student can say. Both are taken in units of
    their standard deviation over pairs of texts, those of the dense similarities.
    """

    def __init__(self, weight: NDArray[np.float32], texts: Texts, weighting: Weighting) -> None:
        self._dense = torch.from_numpy(texts.dense)  # numpy's threads and torch's would wait for each other
        queries, documents = [], []
        for start in range(0, len(texts), 256):
            logits = texts.prepared[start : start + 256] @ weight.T
            queries.append(top_k(logits, 2 * max(weighting.m_query, 1)))
            add_rows(logits, texts.literals[start : start + 256])
            documents.append(weighting.document_weights(top_k(logits, 2 * weighting.k_document)))
        aligned = csr_array(vstack(queries, format="csr"))
        self._queries = scale_rows(aligned, 1 / np.maximum(row_norms(aligned), _TINY))
        self._documents = csr_array(vstack(documents, format="csr"))
        some = np.arange(min(len(texts), 512))
        others = ~np.eye(len(some), dtype=bool)
        dense, own = self._scores(some, some)
        self._ratio = np.float32(dense[others].std() / max(own[others].std(), _TINY))

    def __call__(self, queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return scores, shape `(queries, candidates)`."""
        dense, own = self._scores(queries, candidates)
        taught: NDArray[np.float32] = (1 - _OWN_SHARE) * dense + _OWN_SHARE * self._ratio * own
        return taught

    def _scores(
        self, queries: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        own = (self._queries[queries] @ self._documents[candidates].T).toarray()
        return (self._dense[torch.from_numpy(queries)] @ self._dense[torch.from_numpy(candidates)].T).numpy(), own


class _Student:
    """The decoder that learns."""

    def __init__(self, weight: NDArray[np.float32], texts: Texts, weighting: Weighting, device: str | None) -> None:
        self._device = usable_device(device)
        self._weighting = weighting
        self._texts = texts
        self.weight = torch.tensor(weight, device=self._device, requires_grad=True)
        # distributions over candidates depend on the unit of scores, which no one has fixed: it is learned, too
        self.log_scale = torch.zeros((), device=self._device, requires_grad=True)
        self._unit = float(weight.std())
        self.parameters = {"weight": self.weight, "log_scale": self.log_scale}
        self.optimizer = torch.optim.Adam([{"params": [parameter]} for parameter in self.parameters.values()])

    def match(self, taught: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Start at the scale of scores where the loss is least, so that what it falls by is the decoder's merit."""
        with torch.no_grad():
            scores = self._scores(rows, rows)

            def loss(log_scale: float) -> float:
                return self._divergence(math.exp(log_scale) * scores, rows, rows, taught).item()

            self.log_scale.fill_(minimize_scalar(loss, bounds=(-10, 10), method="bounded").x)

    def loss(self, queries: NDArray[np.int64], candidates: NDArray[np.int64], taught: NDArray[np.float32]) -> Tensor:
        """Return the mean over queries of the Kullback-Leibler divergence from what is taught."""
        return self._divergence(self.log_scale.exp() * self._scores(queries, candidates), queries, candidates, taught)

    def _divergence(
        self, scores: Tensor, queries: NDArray[np.int64], candidates: NDArray[np.int64], taught: NDArray[np.float32]
    ) -> Tensor:
        itself = self._to_device(queries[:, None] == candidates[None, :])
        target = softmax((self._to_device(taught) / _TEMPERATURE).masked_fill(itself, -1e9), dim=1)
        return kl_div(log_softmax(scores.masked_fill(itself, -1e9), dim=1), target, reduction="batchmean")

    def test(self, rows: NDArray[np.int64], taught: NDArray[np.float32]) -> float:
        """Return the loss of texts as queries for each other."""
        with torch.no_grad():
            return self.loss(rows, rows, taught).item()

    def learn(
        self,
        queries: NDArray[np.int64],
        candidates: NDArray[np.int64],
        taught: NDArray[np.float32],
        *,
        rate: float,
    ) -> None:
        """Take one step of Adam (Kingma and Ba 2015)."""
        for group, unit in zip(self.optimizer.param_groups, (self._unit, 1.0), strict=True):
            group["lr"] = rate * unit
        self.optimizer.zero_grad()
        self.loss(queries, candidates, taught).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _scores(self, queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> Tensor:
        """
        Return sparse scores, shape `(queries, candidates)`; the queries are among the candidates.

        The choice of the top tokens passes gradients straight through to the chosen logits.
        """
        logits = self._to_device(self._texts.prepared[candidates]) @ self.weight.T
        literals = self._texts.literals[candidates]
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


class _Checkpoint:
    """A file from which an interrupted refinement of the same input goes on, to the same result."""

    def __init__(self, path: Path | None, digest: str) -> None:
        self._path = path
        self._digest = digest

    def load(self, student: _Student) -> tuple[list[float], Tensor] | None:
        """Set the student to the saved state; return the losses so far and the best matrix, or None."""
        if self._path is None:
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("digest") != self._digest:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            if metadata["content"] != _content_digest(tensors, metadata["losses"]):
                return None
        except (OSError, SafetensorError):
            return None
        for name, parameter in student.parameters.items():
            parameter.detach().copy_(tensors[name])
            student.optimizer.state[parameter] = {
                part: tensors[f"{name}.{part}"].to(parameter.device if part != "step" else "cpu")
                for part in ("step", "exp_avg", "exp_avg_sq")
            }
        return json.loads(metadata["losses"]), tensors["best"].to(student.weight.device)

    def save(self, student: _Student, losses: list[float], best: Tensor) -> None:
        """Replace the file, whole or not at all."""
        if self._path is None:
            return
        tensors = {"best": best}
        for name, parameter in student.parameters.items():
            tensors[name] = parameter.detach()
            tensors |= {f"{name}.{part}": value for part, value in student.optimizer.state[parameter].items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        said = json.dumps(losses)
        metadata = {"digest": self._digest, "losses": said, "content": _content_digest(tensors, said)}
        new = self._path.with_name(f"{self._path.name}.new")
        save_file(tensors, new, metadata)
        new.replace(self._path)

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _content_digest(tensors: Mapping[str, Tensor], losses: str) -> str:
    digest = hashlib.sha256(losses.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _digest(weight: NDArray[np.float32], texts: Texts, weighting: Weighting, seed: int) -> str:
    digest = hashlib.sha256(f"{version('keytok-haystack')} {weighting} {seed}".encode())
    literals = texts.literals
    for array in (weight, texts.prepared, texts.dense, literals.data, literals.indices, literals.indptr):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
