"""Many requests at once through one model."""

from inference.cpu_threads import prepare

prepare()  # before the first module here imports torch
