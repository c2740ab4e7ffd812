"""A small CLIP of OpenCLIP with random weights, and what OpenCLIP makes of texts and pictures with it.

    python tests/golden_open_clip/make.py

Written with open_clip 3.3.0 and torch 2.11.0. `--shape ViT-H-14 FOLDER` writes a model of a real shape there instead
(3.9 GB), for the test that reads the folder in LAPTOP_DIFF_TEST_OPEN_CLIP.
"""

import argparse
import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

SMALL = {
    "embed_dim": 10,
    "vision_cfg": {"image_size": 24, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "mlp_ratio": 3.0},
    "text_cfg": {"context_length": 77, "vocab_size": 640, "width": 24, "heads": 3, "layers": 2},
}


def random_model(config, generator):
    """A model whose every tensor is random, also those that begin as zeros and ones."""
    model = open_clip.CLIP(**config).eval()
    for parameter in model.parameters():
        scale = 0.02 if parameter.numel() > 1_000_000 else 0.2
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    model.logit_scale.data = torch.tensor(4.6052)
    return model


def inputs(config, generator):
    """Token ids whose largest is the end, with padding behind it, and prepared pictures."""
    text, side = config["text_cfg"], config["vision_cfg"]["image_size"]
    end = text["vocab_size"] - 1
    ids = torch.zeros(3, text["context_length"], dtype=torch.long)
    for row, length in enumerate([3, 20, text["context_length"] - 1]):
        ids[row, :length] = torch.randint(1, end - 1, (length,), generator=generator)
        ids[row, length] = end
    return ids, torch.randn(2, 3, side, side, generator=generator)


@torch.no_grad()
def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--shape", nargs=2, metavar=("NAME", "FOLDER"))
    shape = arguments.parse_args().shape
    config, folder = SMALL, Path(__file__).parent
    if shape:
        config, folder = open_clip.get_model_config(shape[0]), Path(shape[1])
        folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    model = random_model(config, generator)
    ids, pictures = inputs(config, generator)
    # Without `attn_mask`, which is no weight.
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}, indent=2) + "\n")
    values = {
        "ids": ids.to(torch.int64),
        "pictures": pictures,
        "text_features": model.encode_text(ids),
        "image_features": model.encode_image(pictures),
        "logit_scale": model.logit_scale.exp().reshape(1),
    }
    save_file({name: value.contiguous() for name, value in values.items()}, folder / "expected.safetensors")


main()
