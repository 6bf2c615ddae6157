"""FishSpeech 1.5 as plain PyTorch, readable beside the paper: no queue, no HTTP."""

from inference.cpu_threads import prepare

prepare()  # before the first module here imports torch
