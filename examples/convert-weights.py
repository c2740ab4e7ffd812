"""Turns a checkpoint of OpenCLIP that is a pickle, such as HPSv2.1's, into a folder that `scorers:` reads.

    python examples/convert-weights.py HPS_v2.1_compressed.pt hps-v2.1

Needs torch and safetensors. The pickle is read with `weights_only=True`, which runs no code of the file. The digests of
the file and of what was written are printed, so that two people can tell whether they have the same weights. The folder
gets no tokenizer: name a repository or a folder with CLIP's as `processor:`.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

# open_clip/model_configs/ViT-H-14.json and ViT-L-14.json of open_clip 3.3.0; HPSv2 is a ViT-H-14.
CONFIGS = {
    "ViT-H-14": {
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
    },
    "ViT-L-14": {
        "embed_dim": 768,
        "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 12},
    },
}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", type=Path, help="the .pt file: a state dict, or a dict with one as `state_dict`")
    arguments.add_argument("folder", type=Path, help="the folder to write")
    arguments.add_argument("--model", choices=CONFIGS, default="ViT-H-14", help="its architecture (default ViT-H-14)")
    given = arguments.parse_args()
    weights = torch.load(given.checkpoint, map_location="cpu", weights_only=True)
    weights = weights.get("state_dict", weights)
    tensors = {
        name.removeprefix("module."): value.clone().contiguous()
        for name, value in weights.items()
        if isinstance(value, torch.Tensor)
    }
    if "visual.conv1.weight" not in tensors:
        raise SystemExit(f"{given.checkpoint} has no `visual.conv1.weight`: it is no checkpoint of OpenCLIP")
    given.folder.mkdir(parents=True, exist_ok=True)
    target = given.folder / "open_clip_model.safetensors"
    save_file(tensors, target)
    config = {"model_cfg": CONFIGS[given.model]}
    (given.folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{sha256(given.checkpoint)}  {given.checkpoint}")
    print(f"{sha256(target)}  {target}")


main()
