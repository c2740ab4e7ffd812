"""Turns a scorer's checkpoint that is a pickle into a folder that `scorers:` reads.

    python examples/convert-weights.py HPS_v2.1_compressed.pt hps-v2.1
    python examples/convert-weights.py ImageReward.pt image-reward
    python examples/convert-weights.py pt_inception-2015-12-05-6726825d.pth inception
    python examples/convert-weights.py clip-vit-large-patch14-336/pytorch_model.bin clip-336

Needs torch and safetensors. What the checkpoint is, its tensors tell: OpenCLIP (HPSv2, HPSv2.1), ImageReward, Inception v3 with
TensorFlow's weights, or a CLIPModel or Dinov2Model of transformers, whose other files are copied from beside it. The pickle is
read with `weights_only=True`, which runs no code of the file. The digests of the file and of what was written are printed, so
that two people can tell whether they have the same weights. A configuration beside the checkpoint is kept; without one, that of
the released model is written. A folder of OpenCLIP or ImageReward gets no tokenizer: name a repository or a folder with CLIP's or
BERT's as `processor:`.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

# open_clip/model_configs/ViT-H-14.json and ViT-L-14.json of open_clip 3.3.0; HPSv2 is a ViT-H-14.
OPEN_CLIP = {
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

# med_config.json beside ImageReward.pt: BERT-base with two more tokens.
MED = {
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "vocab_size": 30524,
    "add_cross_attention": True,
    "encoder_width": 768,
}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path):
    """The tensors of a checkpoint: a state dict, or a dict with one as `state_dict`."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    weights = weights.get("state_dict", weights)
    return {
        name.removeprefix("module."): value.clone().contiguous()
        for name, value in weights.items()
        if isinstance(value, torch.Tensor)
    }


def files_of(tensors, checkpoint, model):
    """The name of the weights' file, the tensors that are read, and configurations by name; None to copy those beside it."""
    if "visual.conv1.weight" in tensors:
        return "open_clip_model.safetensors", tensors, {"open_clip_config.json": {"model_cfg": OPEN_CLIP[model]}}
    if "blip.visual_encoder.cls_token" in tensors:
        parts = ("blip.visual_encoder.", "blip.text_encoder.", "mlp.")
        kept = {name: value for name, value in tensors.items() if name.startswith(parts) and value.is_floating_point()}
        return "model.safetensors", kept, {"med_config.json": MED}
    if "Conv2d_1a_3x3.conv.weight" in tensors:
        kept = {name: value for name, value in tensors.items() if value.is_floating_point()}
        return "model.safetensors", kept, {}
    if "vision_model.embeddings.class_embedding" in tensors or "embeddings.cls_token" in tensors:
        return "model.safetensors", tensors, None
    raise SystemExit(f"{checkpoint} is none of OpenCLIP, ImageReward, Inception v3 of FID, CLIPModel and Dinov2Model")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", type=Path, help="the pickle: .pt, .pth or .bin")
    arguments.add_argument("folder", type=Path, help="the folder to write")
    arguments.add_argument("--model", choices=OPEN_CLIP, default="ViT-H-14", help="OpenCLIP's architecture (default ViT-H-14)")
    given = arguments.parse_args()
    name, tensors, configurations = files_of(load(given.checkpoint), given.checkpoint, given.model)
    given.folder.mkdir(parents=True, exist_ok=True)
    target = given.folder / name
    save_file(tensors, target)
    if configurations is None:
        for file in [*given.checkpoint.parent.glob("*.json"), *given.checkpoint.parent.glob("*.txt")]:
            if not file.name.endswith(".index.json"):
                shutil.copy(file, given.folder / file.name)
    for file, configuration in (configurations or {}).items():
        beside = given.checkpoint.parent / file
        text = beside.read_text() if beside.is_file() else json.dumps(configuration, indent=2) + "\n"
        (given.folder / file).write_text(text)
    print(f"{sha256(given.checkpoint)}  {given.checkpoint}")
    print(f"{sha256(target)}  {target}")


main()
