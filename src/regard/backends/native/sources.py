"""Whether compiled kernels belong to the sources beside them.

An editable installation takes Python from the source tree but the kernels from the last build: after a change of
``native/`` they would go on computing what it said before. Anything else was built as a whole.
"""

from __future__ import annotations

import ctypes
from functools import cache
from hashlib import sha256
from pathlib import Path

from regard._errors import StaleError

_TREE = Path(__file__).parents[4]


@cache
def digest(tree: Path = _TREE) -> str | None:
    """16 digits that stand for all that the kernels are built from; None without a source tree. As CMakeLists.txt."""
    rules = tree / "CMakeLists.txt"
    if not (tree / "native" / "abi.h").exists() or not rules.exists():
        return None
    files = [rules, *sorted(file for kind in ("*.h", "*.cpp") for file in (tree / "native").glob(kind))]
    return sha256("".join(sha256(file.read_bytes()).hexdigest() for file in files).encode()).hexdigest()[:16]


def check_build(library: ctypes.CDLL) -> None:
    """Refuse kernels that were built from other sources.

    Raises:
        StaleError: the digest in the library is not that of the source tree, or it has none.
    """
    wanted = digest()
    if wanted is None:
        return
    try:
        library.regard_build.restype = ctypes.c_char_p
        found = library.regard_build().decode()
    except AttributeError:
        found = ""
    if found != wanted:
        raise StaleError(
            f"compiled kernels must be built from the sources beside them: {library._name} was built from "
            f"{found or 'sources older than these checks'}, and native/ and CMakeLists.txt are now {wanted}. "
            "Install regard again: pip install --editable . (or the same command as the first time)."
        )
