"""What tests/prune.rs asks of the real diffusers (0.42.1).

check.py make FOLDER FAMILY      saves a small random pipeline, `sd15` or `sdxl`
check.py run FOLDER FILE         loads the pruned pipeline and its U-Net alone, as users do, and compares both
                                 predictions with `prediction` in FILE, which holds the inputs too
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoModel, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

# Two implementations in f32 over some thirty layers: about 1e-6 each, far from 1e-4.
TOLERANCE = 1e-4


def text_parts(folder, kind):
    config = CLIPTextConfig(
        vocab_size=260, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=10, bos_token_id=0, eos_token_id=1,
    )
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


@torch.no_grad()
def run(folder, file):
    tensors = load_file(file)
    expected = tensors["prediction"]
    added = {name: tensors[name] for name in ("text_embeds", "time_ids") if name in tensors} or None
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    alone = AutoModel.from_pretrained(f"{folder}/unet", trust_remote_code=True)
    stored = load_file(Path(folder) / "unet" / "diffusion_pytorch_model.safetensors")
    for how, unet in (("pipeline", pipeline.unet), ("alone", alone)):
        assert set(unet.state_dict()) == set(stored), f"{how}: names differ from those on disk"
        found = unet(tensors["sample"], tensors["timestep"], tensors["encoder_hidden_states"], added_cond_kwargs=added)
        error = ((found.sample - expected).norm() / expected.norm()).item()
        print(f"{how}: {type(unet).__name__}, relative error {error:.2e}")
        assert error < TOLERANCE, f"{how}: {error:.2e} is not below {TOLERANCE}"
    picture = pipeline("a b c", num_inference_steps=2, height=16, width=16, output_type="np").images
    assert picture.shape[0] == 1 and (picture == picture).all()


if __name__ == "__main__":
    {"make": make, "run": run}[sys.argv[1]](*sys.argv[2:])
