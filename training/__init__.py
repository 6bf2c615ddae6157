"""The recipe that made minnow, the bundled voice. Start with README.md; `python -m training --help` runs it."""

from inference.cpu_threads import prepare

prepare()  # before the first module here imports torch
