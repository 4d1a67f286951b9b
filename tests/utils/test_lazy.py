# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

import pytest

PACKAGES = ("", ".encoders", ".engines", ".evaluation", ".training")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_a_package_can_be_imported(package):
    module = import_module(f"keytok_haystack{package}")
    for name in module.__all__:
        assert not isinstance(getattr(module, name), ModuleType), name
    assert not hasattr(module, "no_such_name")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_of_a_package_is_hidden_by_a_module_that_is_imported(package):
    """A module becomes an attribute of its package, which would come before a name that is imported on access."""
    module = import_module(f"keytok_haystack{package}")
    assert not {each.name for each in iter_modules(module.__path__)} & set(module._MODULES)


def test_a_package_alone_imports_nothing_that_takes_long():
    code = (
        "import sys, keytok_haystack, keytok_haystack.engines, keytok_haystack.encoders, keytok_haystack.evaluation\n"
    )
    code += "assert not {'numpy', 'scipy', 'tokenizers', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
