"""Models of the real, full shapes with random weights, as diffusers and transformers save them, and what those compute.

    python tests/parity/make.py CASE FOLDER [--dtype f16] [--weights-only]

CASE is a U-Net of tests/golden/configs, or one of the text encoders and autoencoders below. FOLDER then is a pipeline
with this one part; in parity.safetensors are inputs and outputs, or with --weights-only in calibration.safetensors points
to score on. Weights are drawn anew, as in tests/golden/make.py and for its reason. The versions are those of
tests/diffusers/requirements.txt.
"""

import argparse
import json
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

CONFIGS = Path(__file__).parents[1] / "golden/configs"
SEED = 2404_11098
TOKENS = 77
SIZE = 32

# config.json of text_encoder in stable-diffusion-v1-5 and stable-diffusion-2-1, and of text_encoder_2 in
# stable-diffusion-xl-base-1.0.
TEXT_ENCODERS = {
    "clip-l": dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    "openclip-h": dict(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu"
    ),
    "openclip-bigg": dict(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        hidden_act="gelu",
        projection_dim=1280,
    ),
}

# config.json of vae in stable-diffusion-v1-5 and stable-diffusion-xl-base-1.0.
VAES = {"vae-sd15": dict(sample_size=512), "vae-sdxl": dict(sample_size=1024, scaling_factor=0.13025)}
VAE = dict(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
)

# A file is put together in memory, beside the model.
SHARD = "1GB"

generator = torch.Generator().manual_seed(SEED)


def normal(*shape):
    return torch.randn(shape, generator=generator)


@torch.no_grad()
def redraw(model):
    """Products keep their size, norms scale by about one, nothing is zero."""
    for name, weight in model.named_parameters():
        noise = normal(*weight.shape)
        if weight.dim() > 1:
            noise *= weight[0].numel() ** -0.5
        else:
            noise = 0.2 * noise + name.endswith("weight")
        weight.copy_(noise)
    return model.eval()


def unet(case, folder, dtype, weights_only):
    config = json.loads((CONFIGS / f"{case}.json").read_text())
    # Twice the memory is not there to begin with other weights.
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(config).to(dtype)
    model = redraw(model.to_empty(device="cpu"))
    model.save_pretrained(folder / "unet", max_shard_size=SHARD)
    points = 2 if weights_only else 1
    inputs = {
        "sample": normal(points, model.config.in_channels, SIZE, SIZE),
        "timestep": torch.tensor([601, 42])[:points],
        "encoder_hidden_states": normal(points, TOKENS, model.config.cross_attention_dim),
    }
    added = {}
    if model.config.addition_embed_type == "text_time":
        width = model.config.projection_class_embeddings_input_dim - 6 * model.config.addition_time_embed_dim
        ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024], [640, 480, 12, 7, 512, 512]])
        added = {"text_embeds": normal(points, width), "time_ids": ids[:points].clone()}
    if weights_only:
        noise = normal(*inputs["sample"].shape)
        save_file(inputs | added | {"noise": noise}, folder / "calibration.safetensors")
        return
    prediction = model(*inputs.values(), added_cond_kwargs=added).sample
    save(folder, inputs | added, {"sample": prediction})


def text_encoder(case, folder):
    config = CLIPTextConfig(vocab_size=49408, **TEXT_ENCODERS[case])
    with_projection = "projection_dim" in TEXT_ENCODERS[case]
    model = redraw((CLIPTextModelWithProjection if with_projection else CLIPTextModel)(config))
    model.save_pretrained(folder / "text_encoder", max_shard_size=SHARD)
    ids = torch.randint(0, config.vocab_size - 2, (2, TOKENS), generator=generator)
    ids[:, 0] = config.vocab_size - 2
    ids[0, 9:] = config.vocab_size - 1
    ids[1, -1] = config.vocab_size - 1
    out = model(ids, output_hidden_states=True)
    outputs = {"last_hidden_state": out.last_hidden_state, "penultimate": out.hidden_states[-2]}
    outputs |= {"text_embeds": out.text_embeds} if with_projection else {"pooled": out.pooler_output}
    save(folder, {"ids": ids}, outputs)


def vae(case, folder):
    model = redraw(AutoencoderKL(**VAE, **VAES[case]))
    model.save_pretrained(folder / "vae")
    pictures, latents = normal(1, 3, 8 * SIZE, 8 * SIZE).clamp(-1, 1), normal(1, 4, SIZE, SIZE)
    scale = model.config.scaling_factor
    encoded = model.encode(pictures).latent_dist.mean * scale
    decoded = model.decode(latents / scale).sample
    save(folder, {"pictures": pictures, "latents": latents}, {"latents": encoded, "pictures": decoded})


def save(folder, inputs, outputs):
    tensors = {f"inputs.{name}": tensor for name, tensor in inputs.items()}
    tensors |= {f"outputs.{name}": tensor for name, tensor in outputs.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "parity.safetensors")


parser = argparse.ArgumentParser()
parser.add_argument("case")
parser.add_argument("folder", type=Path)
parser.add_argument("--dtype", choices=["f16", "f32"], default="f32")
parser.add_argument("--weights-only", action="store_true")
arguments = parser.parse_args()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()
arguments.folder.mkdir(parents=True, exist_ok=True)
with torch.no_grad():
    if arguments.case in TEXT_ENCODERS:
        text_encoder(arguments.case, arguments.folder)
    elif arguments.case in VAES:
        vae(arguments.case, arguments.folder)
    else:
        dtype = {"f16": torch.float16, "f32": torch.float32}[arguments.dtype]
        unet(arguments.case, arguments.folder, dtype, arguments.weights_only)
index = {part.name: None for part in arguments.folder.iterdir() if part.is_dir()}
(arguments.folder / "model_index.json").write_text(json.dumps(index))
