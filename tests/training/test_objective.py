# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The objective, compared with scipy, numpy and finite differences."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.training import examples_of, sentences
from scipy.special import softmax
from scipy.stats import entropy

from keytok_haystack import Preparation, TokenDecoder
from keytok_haystack.embedding_space import HeadTransform
from keytok_haystack.encoders import head_of
from keytok_haystack.encoders.language_model import LanguageModelEncoder
from keytok_haystack.training.objective import Head, divergence

Tiny = Callable[[str], Path]


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_divergence_is_that_of_scipy(temperature: float):
    random = np.random.default_rng(0)
    logits = random.normal(scale=20, size=(4, 30))
    targets = np.zeros((4, 30))
    features, shares = np.zeros((4, 6), int), np.zeros((4, 6))
    for row, length in enumerate((6, 1, 3, 4)):  # the rest is padding
        features[row, :length] = random.choice(30, size=length, replace=False)
        shares[row, :length] = random.dirichlet(np.ones(length))
        targets[row, features[row, :length]] = shares[row, :length]
    found = divergence(*map(torch.from_numpy, (logits, features, shares)), temperature)
    assert float(found) == pytest.approx(entropy(targets, softmax(logits / temperature, axis=1), axis=1).mean())


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_a_head_with_a_transform_reads_as_in_numpy(activation: str):
    random = np.random.default_rng(1)
    arrays = [random.normal(size=size).astype(np.float32) for size in ((6, 8), 6, 6, 6)]
    transform = HeadTransform(arrays[0], arrays[1], activation, arrays[2], arrays[3], 1e-5, norm=3.0)
    decoder = TokenDecoder(random.normal(size=(20, 7)), Preparation(transform=transform))
    states = random.normal(size=(5, 8)).astype(np.float32)
    found = Head(decoder)(torch.from_numpy(states)).numpy()
    np.testing.assert_allclose(found, transform(states) @ decoder.weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("preset", "architecture"), [("prompt-eol", "opt"), ("contriever", "bert")])
def test_the_gradient_is_that_of_finite_differences(tiny: Tiny, preset: str, architecture: str):
    """In float64, which the norms of some other architectures leave."""
    embedder = f"{preset}:{tiny(architecture)}"
    encoder, decoder = LanguageModelEncoder(embedder), head_of(embedder).decoder
    examples = examples_of(encoder, embedder, sentences(5))
    encoder.network.requires_grad_(requires_grad=True)
    logits = Head(decoder)(encoder.pooled(encoder.batch(examples.inputs)))
    shares = torch.from_numpy(examples.targets.toarray())
    divergence(logits, torch.arange(len(decoder)).expand(5, -1), shares, 0.7).backward()

    exact = copy.deepcopy(encoder.network).double()  # one text at a time, without padding, pooled by hand

    @torch.no_grad()
    def loss() -> float:
        total = 0.0
        for each, target in zip(examples.inputs, examples.targets.toarray(), strict=True):
            states = exact(input_ids=torch.tensor([each.ids])).last_hidden_state[0].numpy()
            pooled = states[-1:] if encoder.preset.pooling == "last" else states.mean(axis=0, keepdims=True)
            transform = decoder.preparation.transform
            read = (pooled if transform is None else transform(pooled)) @ decoder.weight.T.astype(np.float64)
            total += entropy(target, softmax(read[0] / 0.7))
        return total / 5

    random = torch.Generator().manual_seed(2)
    checked = 0
    for (name, parameter), same in zip(encoder.network.named_parameters(), exact.parameters(), strict=True):
        if parameter.grad is None:
            assert "pooler" in name
            continue
        direction = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        step = 1e-5 / direction.norm()
        same.data += step * direction
        above = loss()
        same.data -= 2 * step * direction
        below = loss()
        same.data += step * direction
        expected = (above - below) / (2 * step)
        scale = float(parameter.grad.norm() * direction.norm())
        assert float((parameter.grad * direction).sum()) == pytest.approx(float(expected), abs=1e-4 * scale + 1e-5), (
            name
        )
        checked += scale > 0
    assert checked > 15
