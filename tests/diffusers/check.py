"""What tests/prune.rs and tests/export.rs ask of the real diffusers (0.42.1).

check.py make FOLDER FAMILY      saves a small random pipeline, `sd15` or `sdxl`
check.py run FOLDER FILE         loads the pruned pipeline and its U-Net alone, as users do, and compares both
                                 predictions with `prediction` in FILE, which holds the inputs too
check.py stock FOLDER FILE       the same for a folder that must load without code of its own
check.py original FOLDER FAMILY  saves a small random pipeline with what files of the original layout take for granted
                                 (groups, heads): `sd1`, `sd2` or `sdxl`
check.py single CHECKPOINT FOLDER FILE
                                 loads the single file with the configurations of FOLDER, and compares its U-Net with
                                 FILE and its autoencoder and text encoders with those of FOLDER
check.py same FOLDER OTHER       the models of two folders compute the same
check.py serve                   runs commands from its input, a JSON list per line, and answers `ok` or `failed`
check.py lora FOLDER LORA FILE   reads LORA as diffusers does for the pipeline, adds it to the U-Net, and compares with FILE
"""

import json
import os
import sys
import traceback
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoModel, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

# Two implementations in f32 over some thirty layers: about 1e-6 each, far from 1e-4.
TOLERANCE = 1e-4


def text_parts(folder, kind, **other):
    config = CLIPTextConfig(**dict(
        vocab_size=260, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=10, bos_token_id=0, eos_token_id=1,
    ) | other)
    words = ["<|startoftext|>", "<|endoftext|>", *(chr(97 + i) for i in range(26)), *(chr(97 + i) + "</w>" for i in range(26))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = dict(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    tokenizer = CLIPTokenizer(**files, model_max_length=77)
    return kind(config), tokenizer


def make(folder, family):
    torch.manual_seed(0)
    shared = dict(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=2, norm_num_groups=4,
    )
    vae = AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4,
                        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    words = Path(folder).with_suffix(".words")
    if family == "sd15":
        unet = UNet2DConditionModel(
            **shared, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2, cross_attention_dim=12,
        )
        text_encoder, tokenizer = text_parts(words, CLIPTextModel)
        pipeline = StableDiffusionPipeline(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )
    else:
        unet = UNet2DConditionModel(
            **shared, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 3),
            attention_head_dim=(2, 4), cross_attention_dim=24, use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=58,
        )
        text_encoder, tokenizer = text_parts(words, CLIPTextModel)
        text_encoder_2, tokenizer_2 = text_parts(words, CLIPTextModelWithProjection)
        pipeline = StableDiffusionXLPipeline(
            vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2, tokenizer=tokenizer,
            tokenizer_2=tokenizer_2, unet=unet, scheduler=DDIMScheduler(), add_watermarker=False,
        )
    pipeline.save_pretrained(folder)


def original(folder, family):
    torch.manual_seed(0)
    sdxl, linear = family == "sdxl", family != "sd1"
    channels = (64, 64, 64) if sdxl else (32, 64, 64, 64) if family == "sd1" else (64,) * 4
    attends = lambda way, level: "CrossAttn" + way if (level > 0 if sdxl else level < 3) else way
    shape = dict(sample_size={"sd1": 64, "sd2": 96, "sdxl": 128}[family], block_out_channels=channels)
    if sdxl:
        shape |= dict(addition_embed_type="text_time", addition_time_embed_dim=256,
                      projection_class_embeddings_input_dim=128 + 6 * 256, transformer_layers_per_block=(1, 2, 4))
    levels = range(len(channels))
    unet = UNet2DConditionModel(
        **shape, cross_attention_dim=192 if sdxl else 64, attention_head_dim=1 if linear else 8, use_linear_projection=linear,
        down_block_types=tuple(attends("DownBlock2D", level) for level in levels),
        up_block_types=tuple(attends("UpBlock2D", level) for level in reversed(levels)),
    )
    vae = AutoencoderKL(block_out_channels=(32, 64), layers_per_block=2,
                        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                        scaling_factor=0.13025 if sdxl else 0.18215)
    words = Path(folder).with_suffix(".words")
    small = dict(hidden_size=64, num_attention_heads=1, projection_dim=64)
    open_clip = small | dict(hidden_act="gelu")
    kind = CLIPTextModel
    parts = dict(vae=vae, unet=unet, scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012))
    if sdxl:
        parts["text_encoder"], parts["tokenizer"] = text_parts(words, kind, **small)
        # diffusers tells the two encoders of a single file apart by their widths.
        wide = open_clip | dict(hidden_size=128, num_attention_heads=2, projection_dim=128)
        parts["text_encoder_2"], parts["tokenizer_2"] = text_parts(words, CLIPTextModelWithProjection, **wide)
        pipeline = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        parts["text_encoder"], parts["tokenizer"] = text_parts(words, kind, **(open_clip if linear else small))
        pipeline = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.save_pretrained(folder)


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def compare(how, unet, tensors):
    expected = tensors["prediction"]
    added = {name: tensors[name] for name in ("text_embeds", "time_ids") if name in tensors} or None
    found = unet(tensors["sample"], tensors["timestep"], tensors["encoder_hidden_states"], added_cond_kwargs=added)
    error = relative(found.sample, expected)
    print(f"{how}: {type(unet).__name__}, relative error {error:.2e}")
    assert error < TOLERANCE, f"{how}: {error:.2e} is not below {TOLERANCE}"


@torch.no_grad()
def run(folder, file, stock=False):
    tensors = load_file(file)
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=not stock)
    alone = AutoModel.from_pretrained(f"{folder}/unet", trust_remote_code=not stock)
    assert not stock or type(pipeline.unet) is UNet2DConditionModel
    stored = load_file(Path(folder) / "unet" / "diffusion_pytorch_model.safetensors")
    for how, unet in (("pipeline", pipeline.unet), ("alone", alone)):
        assert set(unet.state_dict()) == set(stored), f"{how}: names differ from those on disk"
        compare(how, unet, tensors)
    picture = pipeline("a b c", num_inference_steps=2, height=16, width=16, output_type="np").images
    assert picture.shape[0] == 1 and (picture == picture).all()


@torch.no_grad()
def same_parts(found, expected):
    """The autoencoders and text encoders of two pipelines compute the same."""
    latents = torch.randn(1, 4, 8, 8)
    assert relative(found.vae.decode(latents).sample, expected.vae.decode(latents).sample) < TOLERANCE
    pictures = torch.randn(1, 3, 16, 16)
    encoded = [pipeline.vae.encode(pictures).latent_dist.mean for pipeline in (found, expected)]
    assert relative(*encoded) < TOLERANCE
    ids = torch.arange(2, 42).reshape(2, 20)
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(expected, name, None) is not None:
            states = [getattr(pipeline, name)(ids) for pipeline in (found, expected)]
            assert relative(states[0].last_hidden_state, states[1].last_hidden_state) < TOLERANCE, name
            if name == "text_encoder_2":
                assert relative(states[0].text_embeds, states[1].text_embeds) < TOLERANCE, name


def single(checkpoint, folder, file):
    expected = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    found = type(expected).from_single_file(checkpoint, config=folder, local_files_only=True)
    with torch.no_grad():
        compare("single file", found.unet, load_file(file))
    same_parts(found, expected)


@torch.no_grad()
def same(folder, other):
    found, expected = (DiffusionPipeline.from_pretrained(path, trust_remote_code=True) for path in (folder, other))
    assert found.scheduler.config.prediction_type == expected.scheduler.config.prediction_type
    assert found.tokenizer("a b").input_ids == expected.tokenizer("a b").input_ids
    ours, theirs = found.unet.state_dict(), expected.unet.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    same_parts(found, expected)


@torch.no_grad()
def lora(folder, file, points):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    state, alphas = type(pipeline).lora_state_dict(file, unet_config=pipeline.unet.config)
    unet = convert_unet_state_dict_to_peft({
        name.removeprefix("unet."): tensor for name, tensor in state.items() if name.startswith("unet.")
    })
    # One alpha for all layers, of rank 2. Without `alphas` diffusers leaves peft's keys as they are.
    alphas = alphas or {name: tensor for name, tensor in unet.items() if name.endswith(".alpha")}
    assert {float(alpha) for name, alpha in alphas.items() if "text_model" not in name} == {1.0}
    downs = [name for name in unet if name.endswith(".lora_A.weight")]
    assert downs
    for down in downs:
        up, module = unet[down.replace(".lora_A.", ".lora_B.")], down.removesuffix(".lora_A.weight")
        weight = pipeline.unet.get_parameter(f"{module}.weight")
        weight += (0.5 * up.flatten(1) @ unet[down].flatten(1)).reshape(weight.shape)
    compare("with LoRA", pipeline.unet, load_file(points))


COMMANDS = {"make": make, "run": run, "original": original, "single": single, "same": same, "lora": lora}
COMMANDS["stock"] = lambda folder, file: run(folder, file, stock=True)


def serve():
    """Runs a command per line, each in a process of its own: importing the libraries takes ten times as long as a check."""
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)
            try:
                COMMANDS[name](*arguments)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print("failed" if os.waitpid(child, 0)[1] else "ok", flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else COMMANDS[sys.argv[1]](*sys.argv[2:])
