"""Tensors in safetensors files that are read page by page, when and where they are looked at."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

from torch import Tensor


class Folder:
    """A temporary folder that is removed when nobody holds it any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="regard-record-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def spilled(x: Tensor, path: Path) -> Tensor:
    """``x`` moved to the file ``path``, as a tensor whose memory is the file's."""
    from safetensors.torch import save_file

    save_file({"x": x.detach().contiguous()}, path)
    return mapped(path)["x"]


def mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped into memory and not read."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping, its own method)
    for x in found.values():
        x.regard_on_disk = True
    return found
