"""Runs the programs of a kernel in Triton's interpreter beside each other, in an order that a seed decides.

The interpreter runs one program after the other, so a program that waits for another would wait for ever. Here each is a greenlet: at each
load, store and atomic operation any of them may be next.
"""

import inspect
import random
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from greenlet import getcurrent, greenlet
from triton.runtime import interpreter

OPERATIONS = ("create_masked_load", "create_masked_store", "create_atomic_rmw")
MAX_OPERATIONS = 100_000
"""Of a launch: with more, its programs wait for ever."""


def run(programs, work, seed):
    """Call `work` once for each of so many programs, until all have ended."""
    builder, choose = interpreter.interpreter_builder, random.Random(seed).choice
    main, running = getcurrent(), {greenlet(work): n for n in range(programs)}

    def then_any(real):
        def operate(*operands):
            done = real(*operands)
            main.switch()
            return done

        return operate

    with ExitStack() as patches:
        for name in OPERATIONS:
            patches.enter_context(patch.object(builder, name, then_any(getattr(builder, name))))
        for _ in range(MAX_OPERATIONS):
            program = choose(list(running))
            builder.set_grid_idx(running[program], 0, 0)
            program.switch()
            if program.dead:
                del running[program]
            if not running:
                return
    raise AssertionError(f"programs {sorted(running.values())} wait for ever")


@contextmanager
def interleaved(kernel, seed):
    """In this block the launches of a kernel (its name) run like that; yields the numbers of programs of the launches so far."""
    launch, counts = interpreter.GridExecutor.__call__, []

    def call(self, *given, **named):
        if self.fn.__name__ != kernel:
            launch(self, *given, **named)
            return
        counts.append(self.grid[0])
        known = inspect.getfullargspec(self.fn).args
        scope = interpreter._patch_lang(self.fn)
        try:
            values = inspect.getcallargs(self.fn, *given, **{k: v for k, v in named.items() if k in known})
            values = {k: v if k in self.constexprs else interpreter._implicit_cvt(v) for k, v in values.items()}
            interpreter.interpreter_builder.set_grid_dim(self.grid[0], 1, 1)
            run(self.grid[0], lambda: self.fn(**values), f"{seed} {len(counts)}")
        finally:
            scope.restore()

    with patch.object(interpreter.GridExecutor, "__call__", call):
        yield counts
