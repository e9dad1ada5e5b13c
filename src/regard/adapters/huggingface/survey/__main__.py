"""``python -m regard.adapters.huggingface.survey [--write FILE] [architecture …]``."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from regard.adapters.huggingface.survey.page import page
from regard.adapters.huggingface.survey.trial import architectures, trial


def main() -> None:
    """Try the architectures that are named, or all of them."""
    import transformers

    parser = argparse.ArgumentParser(prog="python -m regard.adapters.huggingface.survey", description=__doc__)
    parser.add_argument("architecture", nargs="*", help="a model_type, such as 'llama'; default: every one")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page of the documentation")
    arguments = parser.parse_args()
    verdicts = []
    for architecture in arguments.architecture or architectures():
        verdict = trial(architecture)
        verdicts.append(verdict)
        told = verdict.reason or f"{verdict.layers} calls of attention, off by {verdict.off:.1e} at most"
        print(f"{architecture:32} {verdict.kind:10} {told}", flush=True)
    print(", ".join(f"{kind}: {count}" for kind, count in Counter(one.kind for one in verdicts).items()))
    if arguments.write:
        arguments.write.write_text(page(verdicts, transformers.__version__))


if __name__ == "__main__":
    main()
