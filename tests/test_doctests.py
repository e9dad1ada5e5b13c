"""Every example in a docstring of regard runs, and prints what it says."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest
import torch

import regard as rg

PUBLIC = {name: value for name, value in vars(rg).items() if not name.startswith("_")}


def modules() -> list[str]:
    return ["regard", *(found.name for found in pkgutil.walk_packages(rg.__path__, "regard."))]


def examples(module: ModuleType) -> list[doctest.DocTest]:
    names = {"torch": torch, "rg": rg} | PUBLIC | vars(module)
    found = doctest.DocTestFinder().find(module, extraglobs=names)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", [name for name in modules() if not name.endswith("__main__")])
def test_the_examples_of_a_module_run(name: str) -> None:
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    for test in examples(importlib.import_module(name)):
        torch.manual_seed(0)
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_there_are_examples_to_run() -> None:
    count = sum(len(examples(importlib.import_module(name))) for name in ("regard", "regard.masks.causal"))
    assert count >= 2
