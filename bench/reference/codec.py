"""The reference implementation's codec, of whatever width the checkpoint's file has. Runs in `.venv-reference` alone."""

import copy
from pathlib import Path
from typing import Any

import torch
from fish_speech_lib import FIREFLY_GAN_VQ_CONFIG
from hydra.utils import instantiate


def load(checkpoint: Path, device: str = "cpu") -> Any:
    """The codec, in FP32 as the reference implementation runs it."""
    tensors = torch.load(next(checkpoint.glob("firefly-gan-vq-fsq-*.pth")), weights_only=True)
    stages = {name.split(".")[2] for name in tensors if name.startswith("backbone.stages.")}
    groups = {name.split(".")[3] for name in tensors if name.startswith("quantizer.residual_fsq.rvqs.")}
    dims = [len(tensors[f"backbone.stages.{i}.0.gamma"]) for i in sorted(stages)]
    depths = [len({n.split(".")[3] for n in tensors if n.startswith(f"backbone.stages.{i}.")}) for i in sorted(stages)]
    config = copy.deepcopy(FIREFLY_GAN_VQ_CONFIG)
    config["backbone"].update(depths=depths, dims=dims)
    config["head"].update(num_mels=dims[-1], upsample_initial_channel=len(tensors["head.conv_pre.conv.bias"]))
    config["quantizer"].update(input_dim=dims[-1], n_groups=len(groups))
    codec = instantiate(config).eval()
    codec.load_state_dict(tensors)
    return codec.to(device)
