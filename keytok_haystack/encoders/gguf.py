# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Language models as GGUF files, the format of llama.cpp."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from keytok_haystack.encoders.cache import cache_folder
from keytok_haystack.utils.artefacts import is_file, one_line
from keytok_haystack.utils.extras import MissingExtraError, needs
from keytok_haystack.utils.files import replaced_folder

_CONVERSION = 2
"""Raised when folders that have been written must be written again: transformers before 5.7 wrote other tokenizers."""


def unpacked(checkpoint: str) -> str:
    """
    Return the path of a folder with the model of a GGUF file; other checkpoints are returned as they are.

    The weights, quantized as a rule, are written once as float32 in safetensors format; the folder is in the cache,
    under a digest of the file.

    :raises ValueError: The file cannot be read as a model.
    :raises ModuleNotFoundError: torch, transformers or gguf is not installed.
    """
    file = Path(checkpoint)
    if file.suffix != ".gguf" or not is_file(file):
        return checkpoint
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    folder = cache_folder() / "checkpoints" / f"{file.stem}-{digest}-{_CONVERSION}"
    if folder.is_dir():
        return str(folder)
    try:
        with needs("transformers", "Reading GGUF files needs an extra"):
            import torch  # noqa: PLC0415  # seconds to import; not needed when cached
            from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

            # alone in a folder: transformers would read what lies beside it, too, and ask whether to run code there
            with tempfile.TemporaryDirectory() as alone:
                (Path(alone) / file.name).symlink_to(file.resolve())
                options: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False, "local_files_only": True}
                model: Any = AutoModelForCausalLM.from_pretrained(alone, dtype=torch.float32, **options)
                tokenizer = AutoTokenizer.from_pretrained(alone, **options)
    except MissingExtraError:
        raise
    except Exception as error:  # of many types, by what is wrong with the file
        msg = f"'{file}' cannot be read as a language model: {one_line(error)}"
        raise ValueError(msg) from error
    # the weights are not quantized any more, but the configuration still says so
    model.hf_quantizer, model.is_quantized = None, False
    model.config.__dict__.pop("quantization_config", None)
    with replaced_folder(folder, keep_existing=True) as new:  # another process may have been quicker
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
    return str(folder)
