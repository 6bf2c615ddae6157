"""A progress bar for work whose length is known in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar


class ClockBar(BarColumn):
    """Fills in the task's `total` seconds; only moves where there is no total."""

    def render(self, task: Task) -> ProgressBar:
        return ProgressBar(task.total, task.elapsed or 0.0, self.bar_width, pulse=task.total is None, animation_time=task.get_time())


@contextmanager
def step(console: Console, name: str, seconds: float | None) -> Iterator[None]:
    """Show a bar while the block runs, for about so many seconds if that is known. Nothing is shown where nobody watches."""
    columns = TextColumn("{task.description}"), ClockBar(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(name, total=seconds)
        yield
