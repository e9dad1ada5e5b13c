"""What the package promises as a whole: a cheap import, a fixed list of names, and an arrow of imports that holds."""

import ast
import inspect
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import regard as rg

PACKAGE = Path(inspect.getfile(rg)).parent
OPTIONAL = [
    "matplotlib",
    "hypothesis",
    "transformers",
    "rich",
    "onnx",
    "IPython",
    "pandas",
    "pytest",
    "torch._dynamo",
    "torch._inductor",
    "regard.testing",
    "regard.cli",
]
NAMES = [
    "attention",
    "inspect",
    "Inspection",
    "AttentionWeights",
    "explain",
    "Plan",
    "merge",
    "replace",
    "Replacement",
    "record",
    "Record",
    "load_record",
    "Mask",
    "Everything",
    "Nothing",
    "Causal",
    "SlidingWindow",
    "Prefix",
    "Chunked",
    "Dilated",
    "Document",
    "Padding",
    "Dense",
    "Predicate",
    "ScoreModification",
    "Softcap",
    "Alibi",
    "Bias",
    "RelativeBias",
    "ScoreMod",
    "RegardError",
    "RecordError",
    "ShapeError",
    "ArgumentError",
    "KindError",
    "UnsupportedError",
    "StaleError",
    "MissingError",
]
LAYERS = [
    {"_errors", "_pytree"},
    {"_autocast", "_coordinates", "_derivatives", "_merge"},
    {"_dropout", "masks", "scores"},
    {"_call"},
    {"backends"},
    {"_dispatch"},
    {"_plan", "_ready", "weights"},
    {"_attention", "_inspect", "_explain"},
    {"_observe"},
    {"cache"},
    {"nn"},
    {"adapters"},
    {"_replace"},
    {"head_scores"},
    {"figures", "viewer"},
    {"recording"},
    {"lm", "recall"},
    {"__init__"},
    {"testing", "bench"},
    {"cli"},
    {"__main__"},
]
"""The arrow of imports, bottom up: a part imports from the parts below it, never from its own layer or above."""
SHARED_BY_BACKENDS = {"base", "tile"}


def in_a_fresh_process(code: str) -> dict[str, object]:
    # With bytecode, which an installed package has.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


IMPORT = f"""
import json, sys, time, torch
hooks = {{name: id(getattr(torch, name)) for name in dir(torch)}}
functional = {{name: id(getattr(torch.nn.functional, name)) for name in dir(torch.nn.functional)}}
before, began = set(sys.modules), time.process_time()
import regard
took = time.process_time() - began
print(json.dumps({{
    "took": took,
    "optional": [name for name in {OPTIONAL!r} if name in set(sys.modules) - before],
    "patched": [name for name in hooks if id(getattr(torch, name)) != hooks[name]]
    + [name for name in functional if id(getattr(torch.nn.functional, name)) != functional[name]],
    "compilers": [name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules],
}}))
"""


@pytest.fixture(scope="module")
def fresh_imports() -> list[dict[str, object]]:
    return [in_a_fresh_process(IMPORT) for _ in range(5)]


def test_import_adds_less_than_150_ms_to_torch(fresh_imports: list[dict[str, object]]) -> None:
    # Processor time and the least of five, so that a busy machine does not decide.
    assert min(float(str(one["took"])) for one in fresh_imports) < 0.15


def test_import_touches_no_optional_package(fresh_imports: list[dict[str, object]]) -> None:
    assert fresh_imports[0]["optional"] == []
    assert fresh_imports[0]["compilers"] == []


def test_import_patches_nothing(fresh_imports: list[dict[str, object]]) -> None:
    assert fresh_imports[0]["patched"] == []


def public() -> dict[str, object]:
    found = {name: getattr(rg, name) for name in dir(rg) if not name.startswith("_")}
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def test_the_public_names_are_these() -> None:
    assert sorted(public()) == sorted(NAMES)
    assert isinstance(rg.nn, ModuleType)
    assert isinstance(rg.cache, ModuleType)
    assert isinstance(rg.adapters, ModuleType)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name: str) -> None:
    doc = getattr(rg, name).__doc__
    assert doc
    assert not doc.startswith(f"{name}("), "the signature that dataclasses write is no documentation"


@pytest.mark.parametrize("name", [n for n in NAMES if inspect.isclass(getattr(rg, n))])
def test_every_public_method_is_documented(name: str) -> None:
    cls = getattr(rg, name)
    for attribute, value in vars(cls).items():
        if not attribute.startswith("_") and (inspect.isfunction(value) or isinstance(value, (property, staticmethod))):
            assert inspect.getdoc(getattr(cls, attribute)), f"{name}.{attribute}"


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]
    assert rg.__version__ == project["version"]


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def imports() -> Iterator[tuple[Path, list[str]]]:
    """Each module's path inside the package and the dotted names inside the package that it imports."""
    here = {path.stem for path in PACKAGE.iterdir()}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = [alias.name.split(".") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                parts = (node.module or "").split(".")
                found = [[*parts, alias.name] for alias in node.names]
            else:
                continue
            for name in found:
                if name[0] == "regard":
                    yield (
                        path.relative_to(PACKAGE),
                        name[1:] if name[1:] and name[1] in here else ["__init__", *name[1:]],
                    )


def part_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def test_every_part_has_its_layer() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts == set().union(*LAYERS), "put a new part into LAYERS, above all that it imports"


def test_imports_point_down() -> None:
    height = {part: n for n, layer in enumerate(LAYERS) for part in layer}
    for path, name in imports():
        part = part_of(path)
        assert name[0] == part or height[name[0]] < height[part], f"{path} imports regard.{'.'.join(name)}"


def test_masks_and_scores_know_nothing_but_coordinates_and_errors() -> None:
    for path, name in imports():
        if part_of(path) in ("masks", "scores"):
            assert name[0] in (part_of(path), "_coordinates", "_errors", "_pytree"), (
                f"{path} imports regard.{'.'.join(name)}"
            )


def test_no_backend_imports_another() -> None:
    for path, name in imports():
        if part_of(path) != "backends" or name[0] != "backends" or len(path.parts) < 2:
            continue
        own = path.parts[1].removesuffix(".py")
        assert name[1] in SHARED_BY_BACKENDS | {own}, f"{path} imports regard.{'.'.join(name)}"
        assert own not in SHARED_BY_BACKENDS or name[1] in SHARED_BY_BACKENDS


def test_only_the_dispatcher_the_adapters_and_the_benchmark_know_the_backends() -> None:
    for path, name in imports():
        if name[0] == "backends" and part_of(path) not in ("backends", "_dispatch", "adapters", "bench", "testing"):
            assert name[1] in SHARED_BY_BACKENDS, f"{path} imports regard.{'.'.join(name)}"


def test_nothing_but_the_tests_imports_testing() -> None:
    for path, name in imports():
        assert name[0] != "testing" or part_of(path) == "testing", f"{path} imports regard.testing"


def test_no_module_is_too_long_to_read() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


def test_attention_leaves_torchs_settings_alone() -> None:
    def settings() -> tuple[object, ...]:
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        )

    before = settings()
    q = torch.randn(2, 5, 4)
    rg.attention(q, q, q, mask=rg.Causal())
    assert settings() == before
