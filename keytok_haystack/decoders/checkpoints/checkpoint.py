# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Read single tensors out of a Hugging Face checkpoint, without loading the model."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from keytok_haystack.decoders.checkpoints.legacy import PickledFile, converted_tokenizer
from keytok_haystack.decoders.checkpoints.tensors import CheckpointError, SafetensorsFile, Tensor, TensorFile
from keytok_haystack.utils.artefacts import (
    LONGEST_CHAIN,
    endless_chain,
    is_file,
    is_folder,
    one_line,
    read_object,
    refused_as,
)
from keytok_haystack.utils.patterns import check_patterns
from keytok_haystack.vocabulary import load_tokenizer, parsed_tokenizer

_ADAPTER_CONFIG = "adapter_config.json"
_LORA = (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B"))  # of a linear map, an embedding
# of a module, what does not change its weight where the weight is another module's, too
_UNCHANGED = ("weight", "bias", "base_layer.weight", "base_layer.bias", "modules_to_save.weight")
# one of these is in each checkpoint that has a tokenizer, but no tokenizer.json
_OLD_TOKENIZERS = ("vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


@dataclass(frozen=True)
class Checkpoint:
    """
    A checkpoint, whole or sharded, in a local folder or on the Hugging Face hub.

    Its tensors are in safetensors format or, where there are none, as torch saves them.

    :param name: The folder's path or the hub id.
    :param file: Returns the local path of one of its files, downloading it if need be; raises `CheckpointError`.
    :param local_files_only: Take files of a model on the hub from the local cache only.
    """

    name: str
    file: Callable[[str], Path]
    local_files_only: bool

    weights: ClassVar[tuple[str, ...]] = ("model.safetensors", "pytorch_model.bin")

    @staticmethod
    def open(path_or_id: str | Path, *, local_files_only: bool = False) -> "Checkpoint":
        """
        Open a checkpoint, or a PEFT adapter together with the model that it adapts.

        Tensors are fetched only when they are asked for.

        :param local_files_only: Take files of a model on the hub from the local cache only.
        :raises CheckpointError: It is neither a folder nor the id of a model that can be reached, or an adapter of
            itself.
        """
        return Checkpoint._open_chain(path_or_id, local_files_only=local_files_only, chain=LONGEST_CHAIN)

    @staticmethod
    def _open_chain(path_or_id: str | Path, *, local_files_only: bool, chain: int) -> "Checkpoint":
        name, folder = str(path_or_id), Path(path_or_id)

        def local(file: str) -> Path:
            if not is_file(folder / file):
                msg = f"The checkpoint '{name}' has no {file}."
                raise CheckpointError(msg)
            return folder / file

        def remote(file: str) -> Path:
            from huggingface_hub import errors, hf_hub_download  # noqa: PLC0415  # with its client of HTTP, not at once

            try:
                return Path(hf_hub_download(name, file, local_files_only=local_files_only))
            except errors.LocalEntryNotFoundError as error:  # first: it derives from EntryNotFoundError
                msg = f"'{name}' is not a folder, and the Hugging Face hub, where it might be, cannot be reached."
                raise CheckpointError(msg) from error
            except errors.EntryNotFoundError as error:
                msg = f"The checkpoint '{name}' has no {file}."
                raise CheckpointError(msg) from error
            except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
                msg = f"'{name}' is neither a folder nor a model that the Hugging Face hub gives out: {one_line(error)}"
                raise CheckpointError(msg) from error

        checkpoint = Checkpoint(name, local if is_folder(folder) else remote, local_files_only)
        adapter = checkpoint.found(_ADAPTER_CONFIG)
        if adapter is not None:
            settings = _read_object(adapter)
            base = settings.get("base_model_name_or_path")
            if not isinstance(base, str) or base == name:
                msg = f"The adapter '{name}' does not name the model that it adapts: add it to {_ADAPTER_CONFIG}."
                raise CheckpointError(msg)
            if chain == 0:
                raise CheckpointError(endless_chain(name))
            opened = Checkpoint._open_chain(base, local_files_only=local_files_only, chain=chain - 1)
            return _AdaptedCheckpoint(name, checkpoint.file, local_files_only, opened, settings)
        _read_object(checkpoint.file("config.json"))
        return checkpoint

    def found(self, file: str) -> Path | None:
        """Return the local path of a file, if the checkpoint has it."""
        try:
            return self.file(file)
        except CheckpointError:
            return None

    @property
    def config(self) -> dict[str, Any]:
        """The model's `config.json`; of a multimodal model, the language model's part of it."""
        config = _read_object(self.file("config.json"))
        text_config = config.get("text_config")
        return config | text_config if isinstance(text_config, dict) else config

    @property
    def has_tokenizer(self) -> bool:
        """Whether the checkpoint has a tokenizer of any format."""
        return any(self.found(file) for file in ("tokenizer.json", *_OLD_TOKENIZERS))

    def tokenizer(self) -> Tokenizer:
        """
        Read the tokenizer; one of an older format is converted by transformers.

        :raises CheckpointError: There is none, or it cannot be read.
        """
        if self.found("tokenizer.json") is None and self.has_tokenizer:
            converted = converted_tokenizer(self.name, local_files_only=self.local_files_only)
            try:
                return parsed_tokenizer(converted.to_str().encode())
            except ValueError as error:
                msg = f"The tokenizer of '{self.name}' cannot be used: {one_line(error)}"
                raise CheckpointError(msg) from error
        try:
            return load_tokenizer(self.file("tokenizer.json"))
        except ValueError as error:
            raise CheckpointError(str(error)) from error

    def find(self, *endings: str, tied_to: Sequence[str] = ()) -> Tensor | None:
        """
        Return the first tensor whose dotted name ends so, if there is one.

        :param endings: The ends of names, in the order of preference.
        :param tied_to: Those of the parameter that it shares its values with, which may be stored in its place.
        :raises CheckpointError: The tensor is not of floats, or its file cannot be read.
        """
        name = next((n for ending in (*endings, *tied_to) for n in self.tensor_files if _ends(n, ending)), None)
        return None if name is None else self._tensor(name)

    def _tensor(self, name: str) -> Tensor:
        return self._open(self.file(self.tensor_files[name])).tensor(name)

    @cached_property
    def tensor_files(self) -> dict[str, str]:
        """
        The file that holds each tensor.

        :raises CheckpointError: There are no tensors in a known format, or the list of them cannot be read.
        """
        for file in self.weights:
            if (index := self.found(f"{file}.index.json")) is not None:
                weight_map = _read_object(index).get("weight_map")
                if not (isinstance(weight_map, dict) and all(map(_is_file_name, weight_map.values()))):
                    msg = f"'{index}' does not say which file of the checkpoint holds which tensor."
                    raise CheckpointError(msg)
                return weight_map
            if (single := self.found(file)) is not None:
                return dict.fromkeys(self._open(single).names, file)
        self.file(self.weights[0])  # tells what is the matter
        raise AssertionError

    def _open(self, path: Path) -> TensorFile:
        if path not in self._opened:
            self._opened[path] = SafetensorsFile(path) if path.suffix == ".safetensors" else PickledFile(path)
        return self._opened[path]

    @cached_property
    def _opened(self) -> dict[Path, TensorFile]:
        return {}


@dataclass(frozen=True)
class _AdaptedCheckpoint(Checkpoint):
    """
    A PEFT adapter merged into the checkpoint that it adapts.

    As in PEFT's `merge_and_unload`, a tensor that the adapter has of its own (`modules_to_save`) takes the place of the
    base model's, and one with a LoRA becomes `W + scale * B A`.

    :param base: The checkpoint that is adapted.
    :param settings: The adapter's `adapter_config.json`.
    """

    base: Checkpoint
    settings: dict[str, Any]

    weights: ClassVar[tuple[str, ...]] = ("adapter_model.safetensors", "adapter_model.bin")

    @property
    def config(self) -> dict[str, Any]:
        """The base model's `config.json`."""
        return self.base.config

    def tokenizer(self) -> Tokenizer:
        """Read the adapter's own tokenizer, or the base model's."""
        return super().tokenizer() if self.has_tokenizer else self.base.tokenizer()

    def find(self, *endings: str, tied_to: Sequence[str] = ()) -> Tensor | None:
        """Return the first tensor whose dotted name ends so, merged with what the adapter makes of it."""
        own = super().find(*endings, *(_within("modules_to_save", ending) for ending in endings))
        if own is not None:
            return own  # tied to nothing any more
        # what a LoRA is added to is saved with it where the adapter has tokens that the base model lacks
        tensor = super().find(*(_within("base_layer", ending) for ending in (*endings, *tied_to)))
        tensor = tensor or self.base.find(*endings, tied_to=tied_to)
        for ending in (*endings, *tied_to):
            tensor = tensor and self._merged(tensor, ending.removesuffix(".weight"))
        return tensor

    def _merged(self, tensor: Tensor, module: str) -> Tensor:
        """Return a weight plus the LoRA of a module, if it has one; the module's dotted name ends so."""
        parts: dict[str, str] = {}
        path = ""
        for name in self.tensor_files:
            before, found, part = f".{name}".partition(f".{module}.")
            if found and part not in _UNCHANGED:
                parts[part], path = name, f"{before}.{module}"
        if not parts:
            return tensor
        lora = next((pair for pair in _LORA if parts.keys() == set(pair)), None)
        if lora is None:
            msg = (
                f"The adapter '{self.name}' changes '{module}' by more than a plain LoRA ({', '.join(sorted(parts))}). "
                "Merge it with PEFT's `merge_and_unload`, save the model, and name that folder."
            )
            raise CheckpointError(msg)
        a, b = (self._tensor(parts[part]).as_matrix() for part in lora)
        rank, (rows, columns) = a.shape[0], tensor.as_matrix().shape
        # of an embedding the product is the weight's transpose: its B is (d, r), its A (r, V)
        inner, outer = (columns, rows) if lora == _LORA[0] else (rows, columns)
        if rank == 0 or (a.shape, b.shape) != ((rank, inner), (outer, rank)):
            msg = (
                f"The adapter '{self.name}' changes '{module}' by {list(b.shape)} times {list(a.shape)}, which does "
                f"not fit {tensor.name}, {list(tensor.shape)}."
            )
            raise CheckpointError(msg)
        scale = np.float32(self._alpha(path) / (rank**0.5 if self.settings.get("use_rslora") else rank))
        left, right = scale * b.read(), a.read()
        return tensor.plus(left, right) if lora == _LORA[0] else tensor.plus(right.T, left.T)

    def _alpha(self, path: str) -> float:
        """Return the factor of the LoRA of a module, which PEFT finds by patterns of module names."""
        patterns = self.settings.get("alpha_pattern") or {}
        alpha = self.settings.get("lora_alpha", 8)
        try:
            check_patterns((rf".*{pattern}$" for pattern in patterns), len(path))
            alpha = next((own for pattern, own in patterns.items() if re.match(rf"(.*\.)?({pattern})$", path)), alpha)
            if type(alpha) not in (int, float) or not np.isfinite(np.float32(alpha)):
                msg = f"{one_line(str(alpha))} is not a number"
                raise ValueError(msg)  # noqa: TRY301
        except (ValueError, TypeError, AttributeError, OverflowError, re.error) as error:
            msg = f"The {_ADAPTER_CONFIG} of '{self.name}' has no alpha that can be read: {one_line(error)}."
            raise CheckpointError(msg) from error
        return float(alpha)


def _ends(name: str, ending: str) -> bool:
    """Return whether a dotted name has an ending, in whole parts."""
    return f".{name}".endswith(f".{ending}")


def _within(wrapper: str, name: str) -> str:
    """Return the name that a parameter has where PEFT has wrapped its module."""
    module, _, parameter = name.rpartition(".")
    return f"{module}.{wrapper}.{parameter}"


def _is_file_name(name: object) -> bool:
    """Return whether a name is that of a file beside the one that names it."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)


def _read_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    with refused_as(CheckpointError):
        return read_object(file)
