"""A progress bar for work whose length is known in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar


class ClockBar(BarColumn):
    """A bar that fills within the task's `total` seconds, or only pulses when there is no total."""

    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(task.total, task.elapsed or 0.0, self.bar_width, pulse=task.total is None, animation_time=task.get_time())


@contextmanager
def step(console: Console, name: str, seconds: float | None) -> Iterator[None]:
    """Show a bar while the block runs, for about `seconds` if known. Shows nothing when the console is not a terminal."""
    columns = TextColumn("{task.description}"), ClockBar(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(name, total=seconds)
        yield
