# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The wheel holds all that an installed keytok-haystack needs, and finds it there."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from keytok_haystack.utils.resources import resource

ROOT = Path(__file__).resolve().parent.parent.parent
COMPONENTS = "haystack_integrations/components"


def uv(*arguments: object) -> None:
    command = [str(argument) for argument in (Path(sys.executable).parent / "uv", *arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--wheel", "--out-dir", folder, "--python", sys.executable, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_resources_of_a_clone_are_its_own_files():
    assert resource("pipelines") == ROOT / "pipelines"
    assert resource("examples/cranfield") == ROOT / "examples" / "cranfield"


def test_an_unknown_resource_is_named():
    with pytest.raises(FileNotFoundError, match="examples/nothing"):
        resource("examples/nothing")


def test_the_wheel_has_all_modules_and_nothing_else(contents):
    tops = {name.split("/")[0] for name in contents}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"keytok_haystack", "haystack_integrations"}
    for folder, prefix in ((ROOT / "keytok_haystack", ""), (ROOT / "components", "components/")):
        for module in folder.rglob("*.py"):
            name = module.relative_to(ROOT).as_posix().removeprefix(prefix)
            assert contents[name] == module.read_bytes()


@pytest.mark.parametrize(
    "package", ["keytok_haystack", f"{COMPONENTS}/embedders/keytok", f"{COMPONENTS}/retrievers/keytok"]
)
def test_the_wheel_says_that_its_packages_are_typed(package, contents):
    assert f"{package}/py.typed" in contents
    assert f"{package}/__init__.py" in contents


def test_the_wheel_leaves_the_shared_namespace_to_all(contents):
    shared = ["haystack_integrations", COMPONENTS, f"{COMPONENTS}/embedders", f"{COMPONENTS}/retrievers"]
    for package in shared:
        assert f"{package}/__init__.py" not in contents
        assert f"{package}/py.typed" not in contents


@pytest.mark.parametrize("name", ["pipelines", "examples/cranfield"])
def test_the_wheel_bundles_resources_byte_for_byte(name, contents):
    files = [path for path in (ROOT / name).rglob("*") if path.is_file()]
    assert files
    for path in files:
        bundled = f"keytok_haystack/_bundled/{path.relative_to(ROOT).as_posix()}"
        assert contents[bundled] == path.read_bytes()


def test_the_base_install_is_light(contents):
    (metadata,) = (text.decode() for name, text in contents.items() if name.endswith(".dist-info/METADATA"))
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    assert "haystack-ai" in required
    assert not {"torch", "transformers", "sentence-transformers", "matplotlib", "typer"} & set(required)


def test_installed_from_the_wheel_resources_are_found_inside_it(wheel, tmp_path):
    target = tmp_path / "target"
    uv("pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", target, wheel)
    script = "\n".join(
        [
            "import haystack_integrations.components.embedders.keytok as embedders",
            "import haystack_integrations.components.retrievers.keytok as retrievers",
            "from keytok_haystack import pipeline_yaml",
            "from keytok_haystack.utils.resources import resource",
            "assert 'InMemoryDocumentStore' in pipeline_yaml('hybrid.in_memory')",
            "print(resource('examples/cranfield'), resource('pipelines'), sep='\\n')",
            "print(embedders.__file__, retrievers.__file__, sep='\\n')",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(target)},
    )
    assert done.returncode == 0, done.stderr
    cranfield, pipelines, embedders, retrievers = map(Path, done.stdout.splitlines())
    assert cranfield == target / "keytok_haystack" / "_bundled" / "examples" / "cranfield"
    assert (cranfield / "qrels" / "test.tsv").read_bytes() == (ROOT / "examples/cranfield/qrels/test.tsv").read_bytes()
    assert all(target in path.parents for path in (pipelines, embedders, retrievers))
