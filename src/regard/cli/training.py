"""What a training shows in the terminal, and how Ctrl-C ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from regard._errors import MissingError
from regard.lm import Evaluation, LanguageModel, Run, Sampling, Watcher, generate
from regard.lm.curve import draw_curve

_SAMPLE_CHARACTERS = 200


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C or SIGTERM came; a second Ctrl-C interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Screen(Watcher):
    """A progress bar with loss, tokens a second and time left; a line for each look, and now and then a sample.

    Args:
        console: where to print.
        folder: of the run; takes ``loss.png``.
        sample_every: steps between two samples, and one at the end; 0: none.

    Attributes:
        first: whether this process is the one that tells.
    """

    def __init__(self, console: Console, folder: Path, sample_every: int = 0) -> None:
        self.first = False
        self._console, self._folder, self._sample_every = console, folder, sample_every
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]} tokens/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._rate = 0.0
        self._sampled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.stop()

    def begun(self, run: Run, model: LanguageModel) -> None:
        self.first = True
        config = run.config
        self._say(
            f"{run.source}: {model.parameter_count():,} parameters, {config.layers} layers of {config.heads} heads, "
            f"width {config.width}, context {config.context_length}, {config.vocabulary:,} tokens"
        )
        self._say(f"everything goes to {self._folder}")
        self._sampled = run.step // max(self._sample_every, 1)
        if run.step:
            self._say(f"going on from step {run.step}")
        self._task = self._bar.add_task("", total=run.training.steps, completed=run.step, loss="…", rate="…")
        self._bar.start()

    def stepped(self, run: Run, loss: float, tokens: int) -> None:
        self._bar.update(self._task, completed=run.step, loss=f"{loss:.3f}")
        speed = self._bar.tasks[0].speed
        self._rate = (speed or 0.0) * tokens
        self._bar.update(self._task, rate=f"{self._rate:,.0f}" if speed else "…")

    def evaluated(self, run: Run, model: LanguageModel, seen: Evaluation) -> None:
        line = f"step {seen.step:>6}   training {seen.train:.3f}   held out {seen.held_out:.3f} nats a token"
        if abs(seen.per_character - seen.held_out) > 1e-9:
            line += f", {seen.per_character:.3f} a character"
        self._say(line + (f"   {self._rate:,.0f} tokens/s" if self._rate else ""))
        if not self._sample_every:
            return
        times = run.step // self._sample_every
        if times > self._sampled or run.step == run.training.steps:
            self._sampled = times
            self._sample(run, model)

    def saved(self, run: Run, folder: Path) -> None:
        self._say(f"saved {folder}")
        if not run.history:
            return
        try:
            draw_curve(run, self._folder / "loss.png")
        except MissingError as error:
            self._say(str(error))

    def _sample(self, run: Run, model: LanguageModel) -> None:
        start = run.tokenizer.encode("\n")
        ids = generate(model, start, _SAMPLE_CHARACTERS, Sampling(seed=run.step))
        text = "".join(run.tokenizer.stream(ids))[:_SAMPLE_CHARACTERS]
        self._bar.console.print(Padding(Text(text.strip(), style="italic"), (0, 0, 0, 4)))

    def _say(self, line: str) -> None:
        self._bar.console.print(Text(line), soft_wrap=True)
