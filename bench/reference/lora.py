"""Makes a LoRA adapter with the reference implementation, and merges it. Runs in `.venv-reference` alone (`make reference`).

    python -m bench.reference.lora CHECKPOINT ADAPTER.ckpt MERGED.pth

The adapter has rank 8 and alpha 16, random matrices, and the form of a training checkpoint. Both are computed in FP32.
"""

import sys
from pathlib import Path

import torch
from fish_speech_lib.fish_speech.models.text2semantic.llama import BaseTransformer
from fish_speech_lib.fish_speech.models.text2semantic.lora import LoraConfig, get_merged_state_dict


def main() -> None:
    """Write the adapter and the merged weights."""
    checkpoint, adapter, merged = map(Path, sys.argv[1:])
    torch.manual_seed(0)
    model = BaseTransformer.from_pretrained(str(checkpoint), lora_config=LoraConfig(r=8, lora_alpha=16)).train()
    base = torch.load(checkpoint / "model.pth", weights_only=True)
    model.load_state_dict({name: t.float() for name, t in base.items()}, strict=False)
    for name, matrix in model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(matrix, std=0.03)
    matrices = {f"model.{name}": t.clone() for name, t in model.state_dict().items() if "lora" in name}
    torch.save({"state_dict": matrices, "epoch": 0, "optimizer_states": []}, adapter)
    torch.save({name: t.contiguous() for name, t in get_merged_state_dict(model).items()}, merged)


if __name__ == "__main__":
    main()
