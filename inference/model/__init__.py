"""FishSpeech 1.5 as plain PyTorch, readable beside the paper: no queue, no HTTP."""
