"""The page of the documentation that says which architectures work."""

from __future__ import annotations

from collections.abc import Iterable

from regard.adapters.huggingface.survey.trial import RELATIVE, Verdict

HEAD = """\
# Architectures of Hugging Face transformers

Written by `python -m regard.adapters.huggingface.survey --write docs/reference/huggingface.md` for transformers
{version}; every line was found by running.

Each architecture that has a base model is built small with random weights, and run on two texts, the second of which
is shorter and padded (or on two pictures, or two sounds), with eager attention and with `"regard"`, in float32 and eval
mode.

* **works** ({works}): all outputs at the places of tokens are eager's to {relative:g} of the largest, or no further
  from eager attention in float64 than twice eager's own rounding.
* **refused** ({refused}): an error says so, or it has no attention that transformers could replace; where it has one of
  its own, `model.set_attn_implementation` warns and `regard.adapters.huggingface.use` raises.
* **not tried** ({tried}): its default configuration cannot be cut down by the survey's rules, or what goes into it is
  not known to the survey. Nothing is known of these.

What differs all the same: a token that may attend to nothing, such as padding on the left, gets 0 where eager attention
gives it the mean of all values (or 0 too, in models with sinks); weights are those before dropout. Packed sequences are
kept apart where a model tells transformers its positions; GPT-OSS, in transformers 5.23, does not, so that they see
each other there, with eager attention as with regard.

## Works

{names}

## Refused

| architecture | why |
|---|---|
{refusals}

## Not tried

| architecture | why |
|---|---|
{untried}
"""


def page(verdicts: Iterable[Verdict], version: str) -> str:
    """The page in Markdown."""
    of: dict[str, list[Verdict]] = {"works": [], "refused": [], "not tried": []}
    for verdict in sorted(verdicts, key=lambda one: one.architecture):
        of[verdict.kind].append(verdict)
    return HEAD.format(
        version=version,
        relative=RELATIVE,
        works=len(of["works"]),
        refused=len(of["refused"]),
        tried=len(of["not tried"]),
        names=", ".join(f"`{one.architecture}`" for one in of["works"]),
        refusals=_rows(of["refused"]),
        untried=_rows(of["not tried"]),
    )


def read(text: str) -> dict[str, str]:
    """The kind of every architecture on a page, by name."""
    found: dict[str, str] = {}
    kind = ""
    for line in text.splitlines():
        if line.startswith("## "):
            kind = line.removeprefix("## ").lower()
        elif kind == "works" and line.startswith("`"):
            found |= {name.strip("`"): kind for name in line.split(", ")}
        elif kind and line.startswith("| `"):
            found[line.split("`")[1]] = kind
    return found


def _rows(verdicts: list[Verdict]) -> str:
    return "\n".join(f"| `{one.architecture}` | {_cell(one.reason)} |" for one in verdicts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
