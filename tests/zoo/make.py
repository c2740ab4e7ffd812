"""Makes a zoo: small models with random weights of every kind that users bring, and what is expected of each.

    python tests/zoo/make.py FOLDER [WORD]    only the models whose names contain WORD

FOLDER/expected.json has a row for each model:

    model     the file or folder, beside expected.json
    load      further parameters of `use: load`
    outcome   `right` or `refused` by `load`
    inspect   the same for `inspect`, which reads no weights and takes no parameters
    words     what the message contains (refused), or what `load` notes (right)
    golden    right: a file with inputs, and what diffusers and transformers make of them

Rows come from diffusers' and transformers' own writers wherever these can write such a model. Versions are pinned in
tests/diffusers/requirements.txt. Nothing is downloaded; the vocabulary is that of tests/golden/tokenizer.
"""

import inspect
import json
import shutil
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import (
    AsymmetricAutoencoderKL, AutoencoderKL, AutoencoderTiny, CMStochasticIterativeScheduler, DDIMScheduler,
    DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, DPMSolverSDEScheduler, EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler, PNDMScheduler, UNet2DConditionModel, UNet2DModel, UniPCMultistepScheduler,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import original

diffusers.utils.logging.set_verbosity_error()
TOKENIZER = Path(__file__).parent.parent / "golden" / "tokenizer"
SEED = 2404_11098
PROMPTS = ["a photo of the cat", "", "A red HAT <sks> on the mat's  head"]
BETAS = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)

ROWS = []
MAKERS = []


def model(name, outcome="right", words=(), golden=True, inspect=None, **load):
    """A row of the zoo: the function writes it to the path that it gets."""
    row = dict(model=name, outcome=outcome, inspect=inspect or outcome, words=list(words), load=load)

    def register(make):
        MAKERS.append((row, golden and outcome == "right", make))
        return make

    return register


# --- parts ---


def generator(seed=0):
    return torch.Generator().manual_seed(SEED + seed)


def redraw(module, seed=0):
    """Weights that matter: products keep their size, norms scale by about one, nothing is zero."""
    draw = generator(seed)
    for name, weight in module.named_parameters():
        noise = torch.randn(weight.shape, generator=draw)
        if weight.dim() > 1:
            weight.data = noise * weight[0].numel() ** -0.5
        else:
            weight.data = (1 if name.endswith("weight") else 0) + 0.2 * noise
    return module.eval()


SD1 = dict(
    sample_size=8, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4, cross_attention_dim=12,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    attention_head_dim=2,
)
SD2 = SD1 | dict(use_linear_projection=True, attention_head_dim=[1, 2])
SDXL = SD1 | dict(
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    transformer_layers_per_block=(1, 2), attention_head_dim=(2, 4), cross_attention_dim=14, use_linear_projection=True,
    addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=10 + 6 * 8,
)
VAE = dict(
    block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
)


def tokenizer(**other):
    files = {"vocab": str(TOKENIZER / "vocab.json"), "merges": str(TOKENIZER / "merges.txt")}
    return CLIPTokenizer(**files, model_max_length=77, **other)


def text(kind=CLIPTextModel, seed=1, vocabulary=None, **config):
    end = tokenizer().eos_token_id
    sizes = dict(
        vocab_size=vocabulary or end + 1, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=10, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
    )
    return redraw(kind(CLIPTextConfig(**sizes | config)), seed)


def save(path, unet, xl=False, vae=None, scheduler=None, classes=None, texts=None, index=None):
    """A folder of a pipeline, as `save_pretrained` writes it."""
    parts = dict(
        unet=unet if isinstance(unet, torch.nn.Module) else redraw(UNet2DConditionModel(**unet)),
        vae=vae or redraw(AutoencoderKL(**VAE, scaling_factor=0.13025 if xl else 0.18215), 2),
        scheduler=scheduler or PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False),
        tokenizer=tokenizer(),
    )
    if xl:
        parts |= dict(text_encoder=text(hidden_size=8), tokenizer_2=tokenizer(pad_token="!"),
                      text_encoder_2=text(CLIPTextModelWithProjection, 3, hidden_size=6, hidden_act="gelu"))
    else:
        parts["text_encoder"] = text()
    parts |= texts or {}
    kind = getattr(diffusers, classes or ("StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"))
    if not xl:
        parts |= dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    wanted = inspect.signature(kind.__init__).parameters
    kind(**{name: part for name, part in parts.items() if name in wanted}).save_pretrained(path)
    edit(path / "model_index.json", index or {})


def edit(path, changes):
    keys = json.loads(path.read_text())
    keys.update(changes)
    path.write_text(json.dumps(keys, indent=2))


def sd1(path, **other):
    save(path, SD1, **other)


def weights(path, change):
    """The weights of a folder, changed."""
    file = path / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, file, {"format": "pt"})


# --- what diffusers and transformers make of a folder ---


@torch.no_grad()
def golden(folder, file):
    tensors = {}
    draw = generator(9)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    if (unet / "config.json").is_file():
        unet = UNet2DConditionModel.from_pretrained(unet).eval().float()
        inputs = {
            "sample": torch.randn(2, unet.config.in_channels, 8, 8, generator=draw),
            "timestep": torch.tensor([997, 3]),
            "encoder_hidden_states": torch.randn(2, 7, unet.config.cross_attention_dim, generator=draw),
        }
        added = None
        if unet.config.addition_embed_type == "text_time":
            width = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
            sizes = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024], [640, 480, 12, 7, 512, 512]])
            added = {"text_embeds": torch.randn(2, width, generator=draw), "time_ids": sizes}
            inputs |= added
        tensors |= {f"unet.{name}": tensor for name, tensor in inputs.items()}
        tensors["unet.prediction"] = unet(*[inputs[name] for name in ("sample", "timestep", "encoder_hidden_states")],
                                          added_cond_kwargs=added).sample
    metadata = {}
    encoded = []
    for part, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
        words = folder / part.replace("text_encoder", "tokenizer")
        if not (folder / part).is_dir() or not words.is_dir():
            continue
        encode = CLIPTokenizer.from_pretrained(words)
        ids = encode(PROMPTS, padding="max_length", max_length=encode.model_max_length, truncation=True, return_tensors="pt")
        encoder = kind.from_pretrained(folder / part).eval()
        masked = getattr(encoder.config, "use_attention_mask", None)
        output = encoder(ids.input_ids, attention_mask=ids.attention_mask if masked else None, output_hidden_states=True)
        tensors[f"{part}.ids"] = ids.input_ids
        encoded.append(output)
    if len(encoded) == 1:
        tensors["states"] = encoded[0].last_hidden_state
    elif encoded:
        tensors["states"] = torch.cat([output.hidden_states[-2] for output in encoded], -1)
        tensors["text_embeds"] = encoded[1].text_embeds
    if encoded:
        metadata["prompts"] = json.dumps(PROMPTS)
    if (folder / "scheduler").is_dir():
        name = json.loads((folder / "scheduler/scheduler_config.json").read_text())["_class_name"]
        scheduler = getattr(diffusers, name).from_pretrained(folder / "scheduler")
        tensors["alphas_cumprod"] = scheduler.alphas_cumprod.float()
        metadata["prediction"] = scheduler.config.prediction_type
    if (folder / "vae").is_dir():
        name = json.loads((folder / "vae/config.json").read_text())["_class_name"]
        vae = getattr(diffusers, name).from_pretrained(folder / "vae").eval()
        latents = torch.randn(1, vae.config.latent_channels, 5, 6, generator=draw)
        tensors["vae.latents"] = latents
        tensors["vae.pictures"] = vae.decode(latents / vae.config.scaling_factor).sample
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file, metadata)


# --- folders that are right ---

model("sd1")(sd1)
model("sd2")(lambda path: save(path, SD2, scheduler=DDIMScheduler(**BETAS, prediction_type="v_prediction")))
model("sd1-velocity")(lambda path: sd1(path, scheduler=DDIMScheduler(**BETAS, prediction_type="v_prediction")))
model("sdxl")(lambda path: save(path, SDXL, xl=True, scheduler=EulerDiscreteScheduler(**BETAS)))
model("sdxl-zero-snr")(lambda path: save(path, SDXL, xl=True, scheduler=EulerDiscreteScheduler(
    **BETAS, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")))
model("sd1-zero-snr-ddim")(lambda path: sd1(path, scheduler=DDIMScheduler(
    **BETAS, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")))
model("bk-sdm")(lambda path: save(path, SD1 | dict(layers_per_block=1, mid_block_type=None)))
model("ssd-1b")(lambda path: save(path, SDXL | dict(
    mid_block_type="UNetMidBlock2D", transformer_layers_per_block=[[1, 1], [2, 3]],
    reverse_transformer_layers_per_block=[[3, 1, 2], [1, 1, 1]]), xl=True))
model("without-mid")(lambda path: save(path, SDXL | dict(mid_block_type=None), xl=True))
model("swish")(lambda path: save(path, SD1 | dict(act_fn="swish")))
model("one-layer-list")(lambda path: save(path, SD1 | dict(layers_per_block=[1, 2])))
model("attention-everywhere")(lambda path: save(path, SD1 | dict(
    down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2)))
model("attention-nowhere")(lambda path: save(path, SD1 | dict(
    down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)))
model("rectangular")(lambda path: save(path, SD1 | dict(sample_size=(8, 16))))
model("other-frequencies")(lambda path: save(path, SD1 | dict(flip_sin_to_cos=False, freq_shift=1)))
model("wide-time-embedding")(lambda path: save(path, SD1 | dict(time_embedding_dim=24)))


@model("inpainting")
def inpainting(path):
    save(path, SD1 | dict(in_channels=9), classes="StableDiffusionInpaintPipeline")


@model("pix2pix")
def pix2pix(path):
    save(path, SD1 | dict(in_channels=8), classes="StableDiffusionInstructPix2PixPipeline")


@model("bare-unet")
def bare_unet(path):
    redraw(UNet2DConditionModel(**SD1)).save_pretrained(path)


@model("half")
def half(path):
    save(path, redraw(UNet2DConditionModel(**SD1)).half())


@model("shards")
def shards(path):
    sd1(path)
    UNet2DConditionModel.from_pretrained(path / "unet").save_pretrained(path / "unet", max_shard_size="100KB")
    (path / "unet/diffusion_pytorch_model.safetensors").unlink()


@model("fp16-variant", variant="fp16", golden=False)
def variant(path):
    sd1(path)
    redraw(UNet2DConditionModel(**SD1)).half().save_pretrained(path / "unet", variant="fp16")


@model("older-vae")
def older_vae(path):
    """Names of the attention before diffusers 0.17."""
    sd1(path)
    older = [("to_q.", "query."), ("to_k.", "key."), ("to_v.", "value."), ("to_out.0.", "proj_attn.")]

    def rename(name):
        for new, old in older if "mid_block.attentions" in name else []:
            name = name.replace(new, old)
        return name

    weights(path / "vae", lambda found: {rename(name): tensor for name, tensor in found.items()})


# --- tokenizers and text encoders ---


@model("added-tokens")
def added_tokens(path):
    """Textual inversion: a new token, and a row for it in the text encoder, as `load_textual_inversion` saves them."""
    words = tokenizer()
    words.add_tokens(["<sks>"])
    save(path, SD1, texts=dict(tokenizer=words, text_encoder=text(vocabulary=len(words))))


@model("added-tokens-json")
def added_tokens_json(path):
    """The same as transformers 4 wrote it: `added_tokens.json` beside `vocab.json` and `merges.txt`."""
    added_tokens(path)
    for file in (path / "tokenizer").iterdir():
        file.unlink()
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        shutil.copyfile(TOKENIZER / name, path / "tokenizer" / name)
    begin, end = "<|startoftext|>", "<|endoftext|>"
    keys = dict(model_max_length=77, tokenizer_class="CLIPTokenizer", bos_token=begin, eos_token=end, unk_token=end, pad_token=end)
    (path / "tokenizer/tokenizer_config.json").write_text(json.dumps(keys))
    (path / "tokenizer/added_tokens.json").write_text(json.dumps({"<sks>": tokenizer().eos_token_id + 1}))


@model("slow-tokenizer")
def slow_tokenizer(path):
    added_tokens_json(path)
    (path / "tokenizer/added_tokens.json").unlink()


@model("older-text-encoder")
def older_text_encoder(path):
    """SD v1.5: a wrong end token in the config, and `text_model.` before each name."""
    save(path, SD1, texts=dict(text_encoder=text(eos_token_id=2)))
    file = path / "text_encoder/model.safetensors"
    found = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(file).items()}
    found["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(found, file, {"format": "pt"})


@model("attention-mask", "refused", ["use_attention_mask"])
def attention_mask(path):
    sd1(path)
    edit(path / "text_encoder/config.json", {"use_attention_mask": True})


@model("too-small-vocabulary", "refused", ["vocabulary", "tokenizer"])
def too_small_vocabulary(path):
    save(path, SD1, texts=dict(text_encoder=text(vocabulary=300, eos_token_id=299, bos_token_id=298, pad_token_id=299)))


@model("two-padding-conventions")
def other_padding(path):
    save(path, SD1, texts=dict(tokenizer=tokenizer(pad_token="!")))


@model("t5-text-encoder", "refused", ["T5EncoderModel"])
def t5(path):
    sd1(path)
    edit(path / "model_index.json", {"text_encoder": ["transformers", "T5EncoderModel"]})
    edit(path / "text_encoder/config.json", {"architectures": ["T5EncoderModel"], "model_type": "t5"})


# --- schedulers ---

for kind in (DDIMScheduler, DDPMScheduler, PNDMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler,
             HeunDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler):
    plain = dict(clip_sample=False) if kind in (DDIMScheduler, DDPMScheduler) else {}
    model(f"scheduler-{kind.__name__}")(lambda path, kind=kind, plain=plain: sd1(path, scheduler=kind(**BETAS, **plain)))
    if kind is DPMSolverMultistepScheduler:
        assert DPMSolverMultistepScheduler(**BETAS).config.lambda_min_clipped == -float("inf"), "written as -Infinity"
model("scheduler-linear")(lambda path: sd1(path, scheduler=DDPMScheduler(clip_sample=False)))

for name, words, scheduler in [
    ("edm-euler", ["EDMEulerScheduler"], EDMEulerScheduler()),
    ("edm-dpm", ["EDMDPMSolverMultistepScheduler"], EDMDPMSolverMultistepScheduler()),
    ("flow-matching", ["FlowMatchEulerDiscreteScheduler"], FlowMatchEulerDiscreteScheduler()),
    ("consistency", ["CMStochasticIterativeScheduler"], CMStochasticIterativeScheduler()),
    ("flow-sigmas", ["use_flow_sigmas"], DPMSolverMultistepScheduler(**BETAS, use_flow_sigmas=True, prediction_type="flow_prediction")),
    ("sample-prediction", ["prediction_type", "sample"], DDIMScheduler(**BETAS, prediction_type="sample")),
]:
    model(f"scheduler-{name}", "refused", words)(lambda path, scheduler=scheduler: sd1(path, scheduler=scheduler))
for name, words, scheduler in [
    ("dpm-sde", ["sde-dpmsolver++"], DPMSolverMultistepScheduler(**BETAS, algorithm_type="sde-dpmsolver++")),
    ("dpm-third-order", ["solver_order"], DPMSolverMultistepScheduler(**BETAS, solver_order=3)),
    ("dpm-lu", ["use_lu_lambdas"], DPMSolverMultistepScheduler(**BETAS, use_lu_lambdas=True)),
]:
    model(f"scheduler-{name}", words=words)(lambda path, scheduler=scheduler: sd1(path, scheduler=scheduler))


# --- autoencoders ---


def with_vae(name, outcome="right", words=(), cls=AutoencoderKL, **config):
    shape = VAE | config if cls is AutoencoderKL else config
    model(name, outcome, words)(lambda path: sd1(path, vae=redraw(cls(**shape), 2)))


with_vae("vae-scaled", scaling_factor=0.5)
with_vae("vae-no-quant", use_quant_conv=False, use_post_quant_conv=False)
with_vae("vae-no-attention", mid_block_add_attention=False)
with_vae("vae-shift", "refused", ["shift_factor"], shift_factor=0.1)
with_vae("vae-latents-mean", "refused", ["latents_mean"], latents_mean=[0.1] * 4, latents_std=[0.9] * 4)
with_vae("vae-attention-blocks", "refused", ["AttnDownEncoderBlock2D"],
         down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"))
with_vae("vae-asymmetric", "refused", ["AsymmetricAutoencoderKL"], AsymmetricAutoencoderKL, norm_num_groups=4,
         down_block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
         up_block_out_channels=(8, 8), up_block_types=("UpDecoderBlock2D",) * 2)
model("vae-16-channels", "refused", ["latents", "16"])(lambda path: sd1(path, vae=redraw(AutoencoderKL(**VAE, latent_channels=16), 2)))
with_vae("taesd", cls=AutoencoderTiny, encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
         num_encoder_blocks=(1, 2), num_decoder_blocks=(2, 1))


# --- U-Nets that are refused ---


def refused_unet(name, words, classes=None, **config):
    model(name, "refused", words)(lambda path: save(path, SD1 | config))


refused_unet("lcm", ["time_cond_proj_dim"], time_cond_proj_dim=16)
refused_unet("class-labels", ["class_embed_type"], class_embed_type="timestep")
refused_unet("class-count", ["num_class_embeds"], num_class_embeds=7)
refused_unet("fourier", ["time_embedding_type"], time_embedding_type="fourier")
refused_unet("scale-shift", ["resnet_time_scale_shift"], resnet_time_scale_shift="scale_shift")
refused_unet("dual-attention", ["dual_cross_attention"], dual_cross_attention=True, use_linear_projection=True)
refused_unet("only-cross", ["only_cross_attention"], only_cross_attention=True)
refused_unet("gelu", ["act_fn", "gelu"], act_fn="gelu")
refused_unet("simple-cross", ["SimpleCrossAttnDownBlock2D"], down_block_types=("SimpleCrossAttnDownBlock2D", "DownBlock2D"),
             up_block_types=("UpBlock2D", "SimpleCrossAttnUpBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn")
refused_unet("image-embedding", ["encoder_hid_dim"], addition_embed_type="image", encoder_hid_dim=10)


@model("unet-2d", "refused", ["UNet2DModel"])
def unet_2d(path):
    shape = dict(sample_size=8, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4)
    redraw(UNet2DModel(**shape, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))).save_pretrained(path)


@model("refiner", "refused", ["refiner", "not supported"])
def refiner(path):
    refined = SDXL | dict(cross_attention_dim=6, projection_class_embeddings_input_dim=10 + 5 * 8)
    save(path, refined, xl=True, texts=dict(
        text_encoder=None, tokenizer=None, text_encoder_2=text(CLIPTextModelWithProjection, 3, hidden_size=6, hidden_act="gelu"),
        tokenizer_2=tokenizer(pad_token="!")), index={"requires_aesthetics_score": True})


def foreign(name, words, change, inspect=None):
    def make(path):
        sd1(path)
        weights(path / "unet", change)

    model(name, "refused", words, inspect=inspect)(make)


QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q.weight"


def renamed(change):
    return lambda found: {change(name): tensor for name, tensor in found.items()}


foreign("peft-unet", ["LoRA", "fuse"], lambda found: {
    **{name.replace("to_q.weight", "to_q.base_layer.weight"): tensor for name, tensor in found.items()},
    QUERY.replace("weight", "lora_A.default.weight"): torch.randn(2, 8), QUERY.replace("weight", "lora_B.default.weight"): torch.randn(8, 2)})
foreign("lora-processor-unet", ["LoRA", "fuse"], lambda found: found | {
    QUERY.replace("to_q.weight", "processor.to_q_lora.down.weight"): torch.randn(2, 8),
    QUERY.replace("to_q.weight", "processor.to_q_lora.up.weight"): torch.randn(8, 2)})
foreign("ip-adapter-unet", ["IP-Adapter"], lambda found: found | {
    QUERY.replace("to_q.weight", "processor.to_k_ip.0.weight"): torch.randn(8, 12),
    QUERY.replace("to_q.weight", "processor.to_v_ip.0.weight"): torch.randn(8, 12)})
foreign("stray-tensor-unet", ["down_blocks.0.attentions.0.gate"], lambda found: found | {"down_blocks.0.attentions.0.gate": torch.ones(8)})
foreign("nan-unet", ["conv_out.bias", "not finite"], lambda found: found | {"conv_out.bias": torch.full((4,), float("nan"))},
        inspect="right")


@model("fp8-unet")
def fp8_unet(path):
    """Eight bits without scales are plain numbers."""
    sd1(path)
    weights(path / "unet", lambda found: {name: tensor.to(torch.float8_e4m3fn) for name, tensor in found.items()})


# --- files ---


def file(name, outcome="refused", words=(), **other):
    return model(f"{name}.safetensors", outcome, words, **other)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 3438167540\n"


@file("lfs-pointer", words=["Git-LFS", "git lfs pull"])
def lfs_pointer(path):
    path.write_text(POINTER)


@model("lfs-pointer-unet", "refused", ["Git-LFS", "git lfs pull"])
def lfs_pointer_unet(path):
    sd1(path)
    (path / "unet/diffusion_pytorch_model.safetensors").write_text(POINTER)


@model("quantised.gguf", "refused", ["GGUF"])
def gguf(path):
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(64))


@file("gguf-renamed", words=["GGUF"])
def gguf_renamed(path):
    gguf(path)


@file("html-page", words=["web page"])
def html_page(path):
    path.write_text("<!DOCTYPE html>\n<html><head><title>401 Unauthorized</title></head><body>log in</body></html>\n")


@file("flux", words=["Flux"])
def flux(path):
    names = ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight", "img_in.weight", "txt_in.weight"]
    save_file({f"model.diffusion_model.{name}": torch.randn(4, 4) for name in names}, path)


@file("sd3", words=["Stable Diffusion 3"])
def sd3(path):
    names = ["joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight", "pos_embed"]
    save_file({f"model.diffusion_model.{name}": torch.randn(4, 4) for name in names}, path)


@file("embedding", words=["textual-inversion"])
def embedding(path):
    save_file({"emb_params": torch.randn(2, 768)}, path)


@file("embedding-sdxl", words=["textual-inversion"])
def embedding_sdxl(path):
    save_file({"clip_l": torch.randn(2, 768), "clip_g": torch.randn(2, 1280)}, path)


def lora(kind):
    modules = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"]
    found = {}
    for module in modules:
        if kind == "kohya":
            name = "lora_unet_" + module.replace(".", "_")
            found |= {f"{name}.lora_down.weight": torch.randn(2, 8), f"{name}.lora_up.weight": torch.randn(8, 2), f"{name}.alpha": torch.tensor(2.0)}
        elif kind == "peft":
            found |= {f"unet.{module}.lora_A.weight": torch.randn(2, 8), f"unet.{module}.lora_B.weight": torch.randn(8, 2)}
        else:
            found |= {f"unet.{module}.lora.down.weight": torch.randn(2, 8), f"unet.{module}.lora.up.weight": torch.randn(8, 2)}
    return found


for kind in ("kohya", "peft", "diffusers"):
    file(f"lora-{kind}", words=["LoRA", "--lora"])(lambda path, kind=kind: save_file(lora(kind), path))


@model("file-in-a-folder", "refused", ["single file", "give the file"])
def file_in_a_folder(path):
    path.mkdir()
    single_file(path / "v1-5.safetensors", "sd1")
    (path / "._v1-5.safetensors").write_bytes(b"of another system")


@model("lora-folder", "refused", ["pytorch_lora_weights.safetensors", "LoRA", "--lora"])
def lora_folder(path):
    path.mkdir()
    save_file(lora("peft"), path / "pytorch_lora_weights.safetensors")


@file("vae-only", words=["autoencoder"])
def vae_only(path):
    shape = VAE | dict(block_out_channels=(32, 32), norm_num_groups=32)
    state = redraw(AutoencoderKL(**shape), 2)
    save_file({f"first_stage_model.{name}": tensor for name, tensor in original.vae(state.state_dict(), state.config).items()}, path)


@file("vae-bare", words=["autoencoder"])
def vae_bare(path):
    save_file(redraw(AutoencoderKL(**VAE), 2).state_dict(), path)


@file("control-net", words=["ControlNet"])
def control_net(path):
    names = ["input_blocks.0.0.weight", "zero_convs.0.0.weight", "input_hint_block.0.weight", "middle_block_out.0.weight"]
    save_file({f"control_model.{name}": torch.randn(4, 4) for name in names}, path)


@file("clip-only", words=["text encoder"])
def clip_only(path):
    save_file({f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text().state_dict().items()}, path)


@file("empty", words=["0 bytes"])
def empty(path):
    path.write_bytes(b"")


def original_unet(family):
    sdxl, linear = family == "sdxl", family != "sd1"
    channels = (32, 64) if family == "sd1" else (64, 64)
    attends = lambda way, level: "CrossAttn" + way if (level > 0 if sdxl else level < 1) else way
    levels = range(len(channels))
    shape = dict(
        sample_size={"sd1": 64, "sd2": 96, "sdxl": 128}[family], block_out_channels=channels, norm_num_groups=32,
        cross_attention_dim=192 if sdxl else 64, attention_head_dim=1 if linear else 8, use_linear_projection=linear,
        down_block_types=tuple(attends("DownBlock2D", level) for level in levels),
        up_block_types=tuple(attends("UpBlock2D", level) for level in reversed(levels)), layers_per_block=2,
    )
    if sdxl:
        shape |= dict(addition_embed_type="text_time", addition_time_embed_dim=256,
                      projection_class_embeddings_input_dim=128 + 6 * 256, transformer_layers_per_block=(1, 3))
    return shape


def single_file(path, family, text_layers=3, unread_layer=False, scheduler=None, change=lambda found: found, **unet):
    """A checkpoint, and beside it the folder that it stands for."""
    folder = path.with_suffix("")
    xl = family == "sdxl"
    small = dict(hidden_size=64, num_attention_heads=1, intermediate_size=128, projection_dim=64)
    shape = VAE | dict(block_out_channels=(32, 32), norm_num_groups=32, layers_per_block=2, scaling_factor=0.13025 if xl else 0.18215)
    texts = {"text_encoder": text(num_hidden_layers=text_layers, **small, **(dict(hidden_act="gelu") if family == "sd2" else {}))}
    if family == "sd2":
        texts["tokenizer"] = tokenizer(pad_token="!")
    if xl:
        wide = dict(hidden_size=128, num_attention_heads=2, intermediate_size=128, projection_dim=128, hidden_act="gelu")
        texts["text_encoder_2"] = text(CLIPTextModelWithProjection, 3, num_hidden_layers=text_layers, **wide)
    schedule = dict(BETAS) | ({"prediction_type": "v_prediction"} if family == "sd2" else {})
    save(folder, original_unet(family) | unet, xl=xl, vae=redraw(AutoencoderKL(**shape), 2), texts=texts,
         scheduler=scheduler or DDIMScheduler(**schedule))
    state = lambda part, stem: load_file(folder / part / f"{stem}.safetensors")
    config = lambda part: json.loads((folder / part / "config.json").read_text())
    parts = {
        "model.diffusion_model.": original.unet(state("unet", "diffusion_pytorch_model"), config("unet")),
        "first_stage_model.": original.vae(state("vae", "diffusion_pytorch_model"), config("vae")),
    }
    first = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in state("text_encoder", "model").items()}
    if unread_layer:
        # What `encode_prompt` of SD 2.x never reads, and diffusers leaves out.
        last, spare = f"layers.{text_layers - 1}.", f"layers.{text_layers}."
        first |= {name.replace(last, spare): torch.randn_like(tensor) * 0.1 for name, tensor in first.items() if last in name}
    if xl:
        parts["conditioner.embedders.0.transformer."] = first
        parts["conditioner.embedders.1.model."] = original.open_clip(state("text_encoder_2", "model"))
    elif family == "sd2":
        parts["cond_stage_model.model."] = original.open_clip(first)
    else:
        parts["cond_stage_model.transformer."] = first
    found = {prefix + name: tensor.contiguous() for prefix, part in parts.items() for name, tensor in part.items()}
    save_file(change(found), path)


WORDS = dict(tokenizer="tokenizer")


def checkpoint(name, family, outcome="right", words=(), load=None, inspect=None, **other):
    file(name, outcome, words, inspect=inspect, **WORDS | (load or {}))(lambda path: single_file(path, family, **other))


checkpoint("file-sd1", "sd1")
checkpoint("file-sd1-without-mid-attention", "sd1", mid_block_type="UNetMidBlock2D")
checkpoint("file-sd2", "sd2", load=dict(prediction="v_prediction"), text_layers=23, unread_layer=True)
checkpoint("file-sd2-by-diffusers", "sd2", load=dict(prediction="v_prediction"), text_layers=23)
checkpoint("file-sd2-unsaid", "sd2", "refused", ["prediction"], text_layers=23, inspect="right")
checkpoint("file-sdxl", "sdxl")
velocity = dict(BETAS, prediction_type="v_prediction")
mark = lambda *names: lambda found: found | {name: torch.tensor([]) for name in names}
checkpoint("file-sdxl-velocity", "sdxl", scheduler=EulerDiscreteScheduler(**velocity), change=mark("v_pred"))
checkpoint("file-sdxl-zero-snr", "sdxl", change=mark("v_pred", "ztsnr"), scheduler=DDIMScheduler(
    **velocity, rescale_betas_zero_snr=True, timestep_spacing="trailing"))
checkpoint("file-sdxl-edm", "sdxl", "refused", ["EDM"], change=lambda found: found | {
    "edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)})
checkpoint("file-sdxl-edm-mean", "sdxl", "refused", ["edm_mean"], change=lambda found: found | {
    "edm_mean": torch.zeros(4), "edm_std": torch.ones(4)})
checkpoint("file-inpainting", "sd1", in_channels=9)
checkpoint("file-nan-vae", "sd1", "refused", ["first_stage_model.decoder.conv_out.bias", "not finite"], inspect="right",
           change=lambda found: found | {"first_stage_model.decoder.conv_out.bias": torch.full((3,), float("nan"))})
checkpoint("file-fp8-scaled", "sd1", "refused", ["scale_weight"], change=lambda found: {
    **{name: tensor.to(torch.float8_e4m3fn) if name.startswith("model.") else tensor for name, tensor in found.items()},
    "model.diffusion_model.input_blocks.1.1.proj_in.scale_weight": torch.tensor(1.0), "scaled_fp8": torch.tensor([])})
checkpoint("file-ema", "sd1", change=lambda found: found | {"model_ema.decay": torch.tensor(0.9999), "betas": torch.ones(1000)})


@file("file-refiner", words=["refiner", "not supported"])
def refiner_file(path):
    small = dict(hidden_size=64, num_attention_heads=1, intermediate_size=128, projection_dim=64)
    state = original.open_clip(text(CLIPTextModelWithProjection, 3, num_hidden_layers=2, **small).state_dict())
    found = {f"conditioner.embedders.0.model.{name}": tensor for name, tensor in state.items()}
    config = original_unet("sdxl") | dict(cross_attention_dim=64)
    unet = redraw(UNet2DConditionModel(**config))
    found |= {f"model.diffusion_model.{name}": tensor for name, tensor in original.unet(unet.state_dict(), unet.config).items()}
    save_file(found, path)


@file("unet-only", words=["model.diffusion_model."])
def unet_only(path):
    """The U-Net alone without a prefix, as ComfyUI's folder `diffusion_models` has it."""
    unet = redraw(UNet2DConditionModel(**original_unet("sd1")))
    save_file(original.unet(unet.state_dict(), unet.config), path)


def main(folder, word=""):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer").is_dir():
        shutil.copytree(TOKENIZER, folder / "tokenizer")
    (folder / "golden").mkdir(exist_ok=True)
    rows = []
    for row, right, make in MAKERS:
        if word not in row["model"]:
            continue
        path = folder / row["model"]
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        torch.manual_seed(0)
        make(path)
        if right:
            row["golden"] = f"golden/{path.stem}.safetensors"
            golden(path.with_suffix("") if path.is_file() else path, folder / row["golden"])
        if path.is_file():
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        rows.append(row)
    (folder / "expected.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
