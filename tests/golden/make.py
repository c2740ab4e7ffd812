"""Writes the golden numbers beside this script: small models with random weights, their inputs, and what
torch, diffusers and transformers compute. Run it again only to change a case; the versions it ran with are
written to versions.json.

    python tests/golden/make.py

Each .safetensors holds `weights.*` (names as on disk), `inputs.*`, `outputs.*`, and in its metadata the
model's config.json under `config`. Weights are drawn anew, because the initial ones hide mistakes: norms
that scale by one, convolutions that are zero.
"""

import inspect
import json
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AddedToken,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

HERE = Path(__file__).parent
SEED = 2404_11098


def redraw(model, generator):
    """Weights that matter: products keep their size, norms scale by about one, nothing is zero."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() > 1:
            weight.data = noise * weight[0].numel() ** -0.5
        elif name.endswith("weight"):
            weight.data = 1 + 0.2 * noise
        elif name == "logit_scale":
            weight.data = torch.tensor(2.5)
        else:
            weight.data = 0.2 * noise
    return model.eval()


def save(name, config, weights, inputs, outputs):
    tensors = {f"weights.{key}": value for key, value in weights.items()}
    tensors |= {f"inputs.{key}": value for key, value in inputs.items()}
    tensors |= {f"outputs.{key}": value for key, value in outputs.items()}
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    save_file(tensors, HERE / f"{name}.safetensors", metadata={"config": json.dumps(config, default=list)})


@torch.no_grad()
def unet(name, size, **config):
    generator = torch.Generator().manual_seed(SEED)
    model = redraw(UNet2DConditionModel(norm_num_groups=4, sample_size=size, **config), generator)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    inputs = {
        "sample": draw(2, model.config.in_channels, *size),
        "timestep": torch.tensor([997, 3]),
        "encoder_hidden_states": draw(2, 7, model.config.cross_attention_dim),
    }
    added = None
    if config.get("addition_embed_type"):
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024], [640, 480, 12, 7, 512, 512]])
        inputs |= {"text_embeds": draw(2, pooled), "time_ids": ids}
        added = {"text_embeds": inputs["text_embeds"], "time_ids": ids}
    outputs = {}

    def tap(path):
        def hook(_, __, output):
            outputs[path] = output[0] if isinstance(output, tuple) else output

        return hook

    stages = {f"down_blocks.{i}": block for i, block in enumerate(model.down_blocks)}
    stages |= {f"up_blocks.{i}": block for i, block in enumerate(model.up_blocks)}
    if model.mid_block is not None:
        stages["mid_block"] = model.mid_block
    for path, block in stages.items():
        block.register_forward_hook(tap(path))
    outputs["sample"] = model(
        inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"], added_cond_kwargs=added
    ).sample
    save(name, dict(model.config), model.state_dict(), inputs, outputs)


def unets():
    unet(
        "unet_sd15",
        (16, 16),
        block_out_channels=(8, 8, 16, 16),
        attention_head_dim=2,
        cross_attention_dim=12,
    )
    # The size is no multiple of the total stride, so that the upsamplers must cut.
    unet(
        "unet_sdxl",
        (10, 13),
        block_out_channels=(8, 8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 3],
        attention_head_dim=[2, 1, 4],
        cross_attention_dim=12,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=10 + 6 * 8,
    )
    two = dict(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=2,
    )
    unet("unet_one_resnet", (8, 8), **two | dict(layers_per_block=1, mid_block_type="UNetMidBlock2D"))
    unet("unet_no_mid", (8, 8), **two | dict(layers_per_block=1, mid_block_type=None, freq_shift=1, flip_sin_to_cos=False))
    unet(
        "unet_nested",
        (8, 8),
        **two
        | dict(
            layers_per_block=[2, 1],
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            transformer_layers_per_block=[[1, 0], [2]],
            reverse_transformer_layers_per_block=[[0, 2], [1, 0, 2]],
            use_linear_projection=True,
        ),
    )


@torch.no_grad()
def vae():
    generator = torch.Generator().manual_seed(SEED)
    config = dict(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.13025,
    )
    model = redraw(AutoencoderKL(**config), generator)
    pictures = torch.rand(2, 3, 16, 12, generator=generator) * 2 - 1
    latents = torch.randn(2, 4, 5, 6, generator=generator)
    outputs = {
        "latents": model.encode(pictures).latent_dist.mean * model.config.scaling_factor,
        "pictures": model.decode(latents / model.config.scaling_factor).sample,
    }
    inputs = {"pictures": pictures, "latents": latents}
    # Four tiles by five of both, the last ones narrow.
    inputs["large_pictures"] = torch.rand(1, 3, 20, 26, generator=generator) * 2 - 1
    inputs["large_latents"] = torch.randn(1, 4, 10, 13, generator=generator)
    model.enable_tiling()
    model.tile_latent_min_size, model.tile_sample_min_size = 4, 8
    outputs["tiled_latents"] = model.encode(inputs["large_pictures"]).latent_dist.mean * model.config.scaling_factor
    outputs["tiled_pictures"] = model.decode(inputs["large_latents"] / model.config.scaling_factor).sample
    save("vae", dict(model.config), model.state_dict(), inputs, outputs)


@torch.no_grad()
def vae_tiny():
    generator = torch.Generator().manual_seed(SEED)
    config = dict(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(12, 12, 12),
        num_encoder_blocks=(1, 2, 1),
        num_decoder_blocks=(2, 1, 1),
        scaling_factor=0.9,
    )
    model = redraw(AutoencoderTiny(**config), generator)
    pictures = torch.rand(2, 3, 16, 12, generator=generator) * 2 - 1
    # Wide enough that the decoder limits them.
    latents = 3 * torch.randn(2, 4, 5, 6, generator=generator)
    outputs = {
        "latents": model.encode(pictures).latents * model.config.scaling_factor,
        "pictures": model.decode(latents / model.config.scaling_factor).sample,
    }
    save("vae_tiny", dict(model.config), model.state_dict(), {"pictures": pictures, "latents": latents}, outputs)


@torch.no_grad()
def text_encoders():
    generator = torch.Generator().manual_seed(SEED)
    sizes = dict(
        vocab_size=99,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_hidden_layers=3,
        max_position_embeddings=11,
        projection_dim=10,
        bos_token_id=97,
    )
    ids = torch.tensor([[97, 5, 6, 7, 98, 98, 98, 98, 98, 98, 98], [97, 1, 2, 3, 4, 5, 6, 7, 8, 9, 98]])
    # As Stable Diffusion 1.5 has it: a wrong end token, the prefix on disk.
    config = CLIPTextConfig(**sizes, eos_token_id=2)
    model = redraw(CLIPTextModel(config), generator)
    output = model(ids)
    weights = {f"text_model.{key}": value for key, value in model.state_dict().items()}
    outputs = {"last_hidden_state": output.last_hidden_state, "pooled": output.pooler_output}
    save("text_encoder", config.to_dict(), weights, {"ids": ids}, outputs)
    # As SDXL's second: padding by another token than the end, a projection, exact GELU.
    ids = torch.tensor([[97, 5, 6, 98, 0, 0, 0, 0, 0, 0, 0], [97, 1, 2, 3, 4, 5, 6, 7, 8, 9, 98]])
    config = CLIPTextConfig(**sizes, eos_token_id=98, hidden_act="gelu")
    model = redraw(CLIPTextModelWithProjection(config), generator)
    output = model(ids, output_hidden_states=True)
    outputs = {"penultimate": output.hidden_states[-2], "text_embeds": output.text_embeds}
    save("text_encoder_2", config.to_dict(), model.state_dict(), {"ids": ids}, outputs)


@torch.no_grad()
def scorer():
    generator = torch.Generator().manual_seed(SEED)
    tower = dict(hidden_size=16, intermediate_size=24, num_attention_heads=2, num_hidden_layers=2)
    text = dict(tower, vocab_size=99, max_position_embeddings=9, eos_token_id=98, bos_token_id=97)
    config = CLIPConfig(
        text_config=text, vision_config=dict(tower, image_size=24, patch_size=8), projection_dim=10
    )
    model = redraw(CLIPModel(config), generator)
    ids = torch.tensor([[97, 5, 6, 98, 98, 98, 98, 98, 98], [97, 1, 2, 3, 4, 5, 6, 7, 98]])
    # Smooth, as pictures are.
    coarse = torch.rand(1, 3, 5, 7, generator=generator) * 255
    picture = torch.nn.functional.interpolate(coarse, (53, 80), mode="bicubic").clamp(0, 255).byte()[0]
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    prepared = processor(Image.fromarray(picture.permute(1, 2, 0).numpy()), return_tensors="pt").pixel_values
    pictures = torch.cat([prepared, torch.randn(1, 3, 24, 24, generator=generator)])
    output = model(input_ids=ids, pixel_values=pictures)
    inputs = {"ids": ids, "picture": picture, "pictures": pictures}
    outputs = {
        "text_features": model.get_text_features(ids).pooler_output,
        "image_features": model.get_image_features(pictures).pooler_output,
        "logits_per_text": output.logits_per_text,
    }
    save("scorer", config.to_dict(), model.state_dict(), inputs, outputs)


PROMPTS = [
    "a photo of a cat",
    "A Photo  of\ta CAT,   sitting on the mat!",
    "",
    "   ",
    "it's the dog's 1234 toys -- they'll, we've; (((weights:1.3)))",
    "ein Café in Zürich, naïve façade",
    "日本語のプロンプト 猫",
    "an emoji 🐈‍⬛ and combining e\u0301",
    "<|endoftext|> in a text",
    "a <|startoftext|>b",
    "the cat and the dog on the mat " * 20,
]

SDXL_PROMPTS = ["a photo of the cat", PROMPTS[-1]]
SDXL_NEGATIVE = "the sun over the sea"

CORPUS = "a photo of the cat and a dog on the mat in a house with a red hat and the sun over the sea"


def byte_letters():
    """The letters that stand for bytes, in the order of CLIP's vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + index) for index in range(len(rest))]


def tokenizer():
    folder = HERE / "tokenizer"
    folder.mkdir(exist_ok=True)
    words = [(*word[:-1], word[-1] + "</w>") for word in CORPUS.split()]
    merges = []
    while True:
        pairs = [pair for word in words for pair in zip(word, word[1:])]
        if not pairs:
            break
        pair = max(sorted(set(pairs)), key=pairs.count)
        merges.append(pair)
        merged = []
        for word in words:
            word, index = list(word), 0
            while index + 1 < len(word):
                if (word[index], word[index + 1]) == pair:
                    word[index : index + 2] = ["".join(pair)]
                index += 1
            merged.append(tuple(word))
        words = merged
    letters = byte_letters()
    entries = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    begin, end = "<|startoftext|>", "<|endoftext|>"
    cases = {}
    # Stable Diffusion pads with the end token, SDXL's second tokenizer with an exclamation mark.
    for pad in [end, "!"]:
        special = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": pad}
        (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, **special}) + "\n")
        encode = CLIPTokenizer.from_pretrained(folder)
        cases[pad] = encode(PROMPTS, padding="max_length", max_length=77, truncation=True).input_ids
    special["pad_token"] = end
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77}) + "\n")
    (folder / "expected.json").write_text(json.dumps({"prompts": PROMPTS, "ids": cases}, ensure_ascii=False) + "\n")


ADDED_PROMPTS = [
    "a <cat-toy> photo", "a <CAT-toy>photo", "my style cat", "My  style", "xsksx", "a  <S>  b", "a <s> b",
    "the hat on mat", "cathat", "a photo of <cat-toy><cat-toy>, my style",
]


def added_tokens():
    """Words of a textual inversion in the three layouts that transformers has written."""
    plain = {name: (HERE / "tokenizer" / name).read_text()
             for name in ["vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"]}
    first = max(json.loads(plain["vocab.json"]).values()) + 1
    cases = []

    def case(files):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                (Path(folder) / name).write_text(text)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            encoded = tokenizer(ADDED_PROMPTS, padding="max_length", max_length=77, truncation=True).input_ids
        # What is padding is known from the other golden numbers.
        cases.append({"files": {name: text for name, text in files.items() if plain.get(name) != text},
                      "ids": [row[: row.index(tokenizer.eos_token_id)] for row in encoded]})

    case(plain | {"added_tokens.json": json.dumps({"<cat-toy>": first, "My Style": first + 1})})
    flags = dict(lstrip=False, rstrip=False, single_word=False, special=False)
    entries = {str(first): dict(content="<cat-toy>", normalized=True, **flags),
               str(first + 1): dict(content="My Style", normalized=False, **flags)}
    config = json.loads(plain["tokenizer_config.json"]) | {"added_tokens_decoder": entries}
    case(plain | {"tokenizer_config.json": json.dumps(config)})
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(HERE / "tokenizer" / f"{name}.{end}") for name, end in [("vocab", "json"), ("merges", "txt")]}
        tokenizer = CLIPTokenizer(**files, model_max_length=77)
        tokenizer.add_tokens(["<cat-toy>", "My Style", "sks"])
        tokenizer.add_tokens([AddedToken("<S>", lstrip=True, rstrip=True, normalized=False), "hat"])
        tokenizer.save_pretrained(folder)
        case({path.name: path.read_text() for path in sorted(Path(folder).iterdir())})
    (HERE / "added_tokens.json").write_text(
        json.dumps({"prompts": ADDED_PROMPTS, "cases": cases}, ensure_ascii=False) + "\n"
    )


@torch.no_grad()
def sdxl_text():
    """What SDXL's pipeline makes of prompts, with the vocabulary in tokenizer/; the second tokenizer pads by `!`."""
    generator = torch.Generator().manual_seed(SEED)
    files = {"vocab": str(HERE / "tokenizer/vocab.json"), "merges": str(HERE / "tokenizer/merges.txt")}
    tokenizers = [CLIPTokenizer(**files, model_max_length=77, pad_token=pad) for pad in ("<|endoftext|>", "!")]
    end = tokenizers[0].eos_token_id
    sizes = dict(
        vocab_size=end + 1,
        intermediate_size=12,
        num_attention_heads=2,
        num_hidden_layers=3,
        max_position_embeddings=77,
        projection_dim=10,
        bos_token_id=end - 1,
        eos_token_id=end,
    )
    configs = [CLIPTextConfig(hidden_size=8, **sizes), CLIPTextConfig(hidden_size=6, hidden_act="gelu", **sizes)]
    kinds = [CLIPTextModel, CLIPTextModelWithProjection]
    first, second = [redraw(kind(config), generator) for kind, config in zip(kinds, configs)]
    pipeline = StableDiffusionXLPipeline(
        vae=AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4,
                          down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2),
        text_encoder=first, text_encoder_2=second, tokenizer=tokenizers[0], tokenizer_2=tokenizers[1],
        unet=UNet2DConditionModel(
            norm_num_groups=4, block_out_channels=(8, 16), down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2, cross_attention_dim=14, attention_head_dim=2,
            addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=58,
        ),
        scheduler=DDIMScheduler(), add_watermarker=False,
    )
    encode = lambda negative: pipeline.encode_prompt(SDXL_PROMPTS, negative_prompt=negative)
    states, without, pooled, pooled_without = encode([SDXL_NEGATIVE] * len(SDXL_PROMPTS))
    for nothing in encode(None)[1::2]:
        assert not nothing.any(), "no negative prompt is zeros"
    # Latents of 10 x 13 are pictures of 20 x 26.
    time_ids = pipeline._get_add_time_ids((20, 26), (0, 0), (20, 26), torch.float32, 10)
    outputs = {
        "encoder_hidden_states": states, "text_embeds": pooled, "time_ids": time_ids.repeat(len(SDXL_PROMPTS), 1),
        "negative.encoder_hidden_states": without, "negative.text_embeds": pooled_without,
    }
    weights = {f"text_encoder.{key}": value for key, value in first.state_dict().items()}
    weights |= {f"text_encoder_2.{key}": value for key, value in second.state_dict().items()}
    config = {"text_encoder": configs[0].to_dict(), "text_encoder_2": configs[1].to_dict()}
    config |= {"prompts": SDXL_PROMPTS, "negative_prompt": SDXL_NEGATIVE}
    save("sdxl_text", config, weights, {}, outputs)


@torch.no_grad()
def macs():
    """Multiply-accumulates of one sample, counted by torch without computing anything."""
    counts = {}
    for name in ["sd-v1-5", "sdxl-base"]:
        config = json.loads((HERE / f"configs/{name}.json").read_text())
        with torch.device("meta"):
            model = UNet2DConditionModel.from_config(config)
            size = model.config.sample_size
            states = torch.empty(1, 77, model.config.cross_attention_dim)
            added = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
            with FlopCounterMode(display=False) as counter:
                model(torch.empty(1, 4, size, size), torch.empty(1), states, added_cond_kwargs=added)
        counts[name] = counter.get_total_flops() // 2
    (HERE / "macs.json").write_text(json.dumps(counts, indent=1) + "\n")


def parameters():
    """The keys that a config.json of each class can have."""
    classes = [UNet2DConditionModel, AutoencoderKL, AutoencoderTiny]
    names = {of.__name__: sorted(set(inspect.signature(of.__init__).parameters) - {"self"}) for of in classes}
    (HERE / "parameters.json").write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    macs()
    parameters()
    unets()
    vae()
    vae_tiny()
    text_encoders()
    scorer()
    tokenizer()
    added_tokens()
    sdxl_text()
    versions = {module.__name__: module.__version__ for module in [torch, diffusers, transformers]}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
