"""Small scorers of the real architectures with random weights, and what the reference implementations make of them.

    python tests/golden_scorers/make.py [dinov2|inception|image-reward|pick-score|sets ...]

The scorers go to examples/nano-sd/scorers, in the form in which examples/convert-weights.py and transformers write real
ones; the expected numbers go beside this file. Each is written with the packages of its authors:

- dinov2: transformers 5.23.0 `Dinov2Model`; pictures prepared by torchvision 0.26.0 as in dgm-eval's `DINOv2Encoder`.
- inception: pytorch-fid 0.3.0 over torchvision 0.26.0, with a sixteenth of the channels.
- image-reward: image-reward 1.5 with transformers 4.36.2 and timm 0.6.13, which need an environment of their own. Its
  import of `fairscale`, which is for training, is replaced by an empty module.
- sets: pytorch-fid 0.3.0 (scipy 1.17.1) for the Frechet distance; for CMMD the formula of its authors' `distance.py` in f64.

- pick-score: transformers 5.23.0 `CLIPModel`, only with `--real`: the small CLIP is the trained one.

All with torch 2.11.0. `--real FOLDER` writes scorers of the real shapes there instead, with their expected numbers, for the
test that reads the folder in LAPTOP_DIFF_TEST_SCORERS. `tests/parity/scorers.sh` does all of it.
"""

import argparse
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
NANO = HERE.parent.parent / "examples" / "nano-sd" / "scorers"


def waves(*shape):
    """Numbers in -1..1 that a test can make again: sin(0.37 i + sin(0.011 i))."""
    i = torch.arange(int(np.prod(shape)), dtype=torch.float64)
    return torch.sin(0.37 * i + torch.sin(0.011 * i)).float().reshape(shape)


def pictures():
    """Two pictures [h, w, 3] with edges, gradients and noise."""
    generator = np.random.default_rng(3)
    made = []
    for height, width in [(64, 64), (40, 72)]:
        y, x = np.mgrid[:height, :width]
        base = np.stack([(3 * x) % 256, (5 * y) % 256, 255 * ((x // 8 + y // 8) % 2)], axis=-1)
        made.append(np.clip(base + generator.integers(-20, 20, base.shape), 0, 255).astype(np.uint8))
    return made


def randomise(model, seed, real):
    """Random weights, also where they begin as zeros and ones, in numbers that half precision holds."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or tensor.dim() == 0:
            continue
        if name.endswith("running_var"):
            value = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif tensor.dim() == 1:
            one = 1.0 if "norm" in name.lower() and name.endswith("weight") or name.endswith(("bn.weight", "lambda1")) else 0.0
            value = one + 0.1 * torch.randn(tensor.shape, generator=generator)
        else:
            value = torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5
            if tensor.dim() == 3 or "embeddings" in name:
                value = torch.randn(tensor.shape, generator=generator) * 0.3
        tensor.data = value.half().float()
    return model.eval()


def save(tensors, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)


def stored(model):
    """The state dict in half precision, which loses nothing here."""
    return {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


@torch.no_grad()
def dinov2(folder, real):
    from PIL import Image
    from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor
    from transformers import Dinov2Config, Dinov2Model

    sizes = {} if real else {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 70}
    if real:
        sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 518}
    config = Dinov2Config(patch_size=14, mlp_ratio=4, **sizes)
    model = randomise(Dinov2Model(config), 11, real)
    model.half().save_pretrained(folder / "dinov2")
    model.float()
    prepare = Compose([
        Resize((224, 224), InterpolationMode.BICUBIC),
        ToTensor(),
        Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])
    prepared = torch.stack([prepare(Image.fromarray(picture)) for picture in pictures()])
    return {
        "prepared": prepared[:, :, ::16, ::16],
        "features": model(waves(2, 3, 224, 224)).pooler_output,
        "picture_features": model(prepared).pooler_output,
    }


@torch.no_grad()
def inception(folder, real):
    import torchvision.models.inception as parts
    from pytorch_fid import inception as fid

    if not real:
        whole = parts.BasicConv2d

        class Slim(whole):
            def __init__(self, in_channels, out_channels, **other):
                super().__init__(in_channels if in_channels == 3 else in_channels // 16, out_channels // 16, **other)

        parts.BasicConv2d = Slim
    network = parts.Inception3(num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    for name, width in [("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)]:
        setattr(network, f"Mixed_{name}", fid.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b = fid.FIDInceptionE_1(1280)
    network.Mixed_7c = fid.FIDInceptionE_2(2048)
    randomise(network, 12, real)
    weights = {name: value for name, value in stored(network).items() if real or not name.startswith("fc.")}
    save({name: value for name, value in weights.items() if "num_batches" not in name}, folder / "inception" / "model.safetensors")
    fid.fid_inception_v3 = lambda: network
    model = fid.InceptionV3([3], resize_input=True, normalize_input=True).eval()

    def features(pictures):
        return model(pictures)[0].squeeze(-1).squeeze(-1)

    tensors = [torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 for picture in pictures()]
    resized = [2 * torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1 for x in tensors]
    return {
        "prepared": torch.cat(resized)[:, :, ::23, ::23],
        # The network alone: its input in -1..1 is 2x - 1 of this.
        "features": features((waves(2, 3, 299, 299) + 1) / 2),
        "picture_features": torch.cat([features(x) for x in tensors]),
    }


@torch.no_grad()
def image_reward(folder, real):
    import importlib.util

    # The packages' __init__ import training code; only three of their modules are needed.
    place = Path(importlib.util.find_spec("ImageReward").origin).parent
    for name, folder_of in [("ImageReward", place), ("ImageReward.models", place / "models"), ("ImageReward.models.BLIP", place / "models/BLIP")]:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder_of)]
    for name in ["fairscale", "fairscale.nn", "fairscale.nn.checkpoint", "fairscale.nn.checkpoint.checkpoint_activations"]:
        sys.modules[name] = types.ModuleType(name)
    sys.modules["fairscale.nn.checkpoint.checkpoint_activations"].checkpoint_wrapper = None
    from ImageReward.ImageReward import MLP, ImageReward, _transform
    from ImageReward.models.BLIP.med import BertConfig, BertModel
    from ImageReward.models.BLIP.vit import VisionTransformer
    from PIL import Image
    from transformers import BertTokenizer

    target = folder / "image-reward"
    words = "a an the of and with on left right red green blue yellow circle square triangle star small large photo cat dog".split()
    pieces = list("abcdefghijklmnopqrstuvwxyz0123456789") + ["##" + c for c in "abcdefghijklmnopqrstuvwxyz0123456789"] + ["##ing", "##le", "##s"]
    vocabulary = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *list(".,!?'-"), *pieces, *words]
    target.mkdir(parents=True, exist_ok=True)
    (target / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    tokenizer = BertTokenizer(str(target / "vocab.txt"))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    config = {
        "hidden_size": 768 if real else 32, "num_hidden_layers": 12 if real else 2, "num_attention_heads": 12 if real else 2,
        "intermediate_size": 3072 if real else 64, "vocab_size": 30524 if real else len(tokenizer), "max_position_embeddings": 512 if real else 40,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu", "add_cross_attention": True, "encoder_width": 768, "model_type": "bert",
    }
    write_json(target / "med_config.json", config)
    side, width = (224, 1024) if real else (64, 64)
    vision = VisionTransformer(img_size=side, patch_size=16, embed_dim=width, depth=24 if real else 2, num_heads=16 if real else 1)
    model = torch.nn.Module()
    model.blip = torch.nn.Module()
    model.blip.visual_encoder = vision
    model.blip.text_encoder = BertModel(BertConfig(**{**config, "encoder_width": width}), add_pooling_layer=False)
    model.mlp = MLP(config["hidden_size"])
    if not real:
        narrow = [32, 12, 8, 6, 4, 1]
        places = [0, 2, 4, 6, 7]
        for place, (one, other) in zip(places, zip(narrow, narrow[1:])):
            model.mlp.layers[place] = torch.nn.Linear(one, other)
    randomise(model, 13, real)
    model.device, model.mean, model.std = "cpu", 0.16717362830052426, 1.0333394966054072
    weights = {name: value for name, value in stored(model).items() if not name.endswith("position_ids")}
    save(weights, target / "model.safetensors")
    texts = [
        "a red circle on the left of a blue square",
        "The LARGE, yellow stars: caf\u00e9-like; unseen \u4e2d words!",
        "a photo of a small green triangle and " * 8,
        "",
    ]
    encoded = [tokenizer(text, padding="max_length", truncation=True, max_length=35, return_tensors="pt") for text in texts]
    # inference_rank, for one picture and each text.
    prepare = _transform(side)
    prepared = torch.stack([prepare(Image.fromarray(picture)) for picture in pictures()])
    score = lambda picture, text: ImageReward.score_gard(model, text.input_ids, text.attention_mask, picture[None])[0]
    given = waves(2, 3, side, side)
    write_json(HERE / "image-reward-texts.json", texts) if not real else None
    return {
        "ids": torch.cat([text.input_ids for text in encoded]).int(),
        "scores": torch.stack([torch.cat([score(picture, text) for text in encoded]) for picture in given]),
        "prepared": prepared[:, :, ::16, ::16],
        "picture_scores": torch.stack([torch.cat([score(picture, text) for text in encoded]) for picture in prepared]),
    }


@torch.no_grad()
def pick_score(folder, real):
    if not real:
        return None
    from transformers import CLIPConfig, CLIPModel

    # config.json of yuvalkirstain/PickScore_v1, whose end of text is 2 although the id is another.
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "eos_token_id": 2}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    shared = {"hidden_act": "gelu", "projection_dim": 1024}
    vision |= shared | {"image_size": 224, "patch_size": 14}
    config = CLIPConfig(text_config=text | shared, vision_config=vision, projection_dim=1024)
    model = randomise(CLIPModel(config), 14, real)
    model.half().save_pretrained(folder / "pick-score")
    model.float()
    generator = torch.Generator().manual_seed(15)
    ids = torch.zeros(3, 77, dtype=torch.long)
    for row, length in enumerate([3, 20, 76]):
        ids[row, :length] = torch.randint(1, 49405, (length,), generator=generator)
        ids[row, length] = 49407
    found = model(input_ids=ids, pixel_values=waves(2, 3, 224, 224))
    return {
        "ids": ids.int(),
        "text_embeds": found.text_embeds,
        "image_embeds": found.image_embeds,
        "scores": found.logits_per_text,
    }


def sets(folder, real):
    from pytorch_fid.fid_score import calculate_frechet_distance

    generator = np.random.default_rng(17)
    values = {}
    for name, (n, m, d) in {"many": (60, 45, 12), "few": (7, 5, 12)}.items():
        mix = generator.normal(size=(d, d))
        one = (generator.normal(size=(n, d)) @ mix).astype(np.float32)
        other = (generator.normal(size=(m, d)) @ mix * 1.2 + 0.3).astype(np.float32)
        x, y = one.astype(np.float64), other.astype(np.float64)
        if name == "many":
            frechet = calculate_frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
        else:
            # scipy's root of a singular matrix is inaccurate: the sum of the roots of the eigenvalues instead.
            one_cov, other_cov = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
            roots = np.sqrt(np.clip(np.linalg.eigvals(one_cov @ other_cov).real, 0, None))
            frechet = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(one_cov) + np.trace(other_cov) - 2 * np.sort(roots)[::-1][: min(n, m) - 1].sum()
        unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)
        u, v = unit(x), unit(y)
        kernel = lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 200).mean()
        cmmd = 1000 * (kernel(u, u) + kernel(v, v) - 2 * kernel(u, v))
        values |= {f"{name}.one": torch.from_numpy(one), f"{name}.other": torch.from_numpy(other)}
        values[f"{name}.expected"] = torch.tensor([frechet, cmmd], dtype=torch.float64)
    return values


MAKERS = {"dinov2": dinov2, "inception": inception, "image-reward": image_reward, "pick-score": pick_score, "sets": sets}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("names", nargs="*", choices=[*MAKERS, []], help="which of them (default all)")
    arguments.add_argument("--real", type=Path, metavar="FOLDER")
    given = arguments.parse_args()
    for name in given.names or MAKERS:
        values = MAKERS[name](given.real or NANO, given.real is not None)
        if values is None:
            continue
        if not given.real and name != "sets":
            pairs = {f"picture.{i}": torch.from_numpy(picture) for i, picture in enumerate(pictures())}
            save(pairs, HERE / "pictures.safetensors")
        save(values, (given.real or HERE) / f"{name}.safetensors")


main()
