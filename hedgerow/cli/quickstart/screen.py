"""What the quickstart shows: one line a step with its result and time; a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hedgerow.clock import Clock

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_S = 0.1


class Step:
    """The line of one running step; ``note`` replaces its grey text, ``result`` is what stays."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.doing = ""
        self.results: list[str] = []

    def note(self, text: str) -> None:
        self.doing = text

    def result(self, text: str) -> None:
        self.results.append(text)


class Screen:
    """Prints steps in order; knows how many there are."""

    def __init__(self, steps: int, clock: Clock, *, on_stderr: bool) -> None:
        self._steps = steps
        self._number = 0
        self._clock = clock
        self._on_stderr = on_stderr
        self._live = (sys.stderr if on_stderr else sys.stdout).isatty()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Run one step under its line; an exception marks the line and goes on up."""
        self._number += 1
        step, started_s, done = Step(title), self._clock.monotonic_s(), threading.Event()
        spinner = threading.Thread(target=self._spin, args=(step, done), daemon=True)
        if self._live:
            spinner.start()
        mark = click.style("✗", fg="red")
        try:
            yield step
            mark = click.style("✓", fg="green")
        finally:
            done.set()
            if self._live:
                spinner.join()
                self._echo("\r\033[K", end="")
            seconds = self._clock.monotonic_s() - started_s
            self._echo(f" {mark} {self._head(step)}  {click.style(f'{seconds:.1f} s', dim=True)}")
            for line in step.results:
                self._echo(f"       {line}")

    def _echo(self, text: str, end: str = "\n") -> None:
        click.echo(text + end, nl=False, err=self._on_stderr)

    def _head(self, step: Step) -> str:
        return f"{self._number}/{self._steps} {step.title}"

    def _spin(self, step: Step, done: threading.Event) -> None:
        frame = 0
        while not done.wait(_FRAME_S):
            frame = (frame + 1) % len(_FRAMES)
            doing = click.style(f"  {step.doing[:60]}", dim=True)
            self._echo(f"\r\033[K {_FRAMES[frame]} {self._head(step)}{doing}", end="")
