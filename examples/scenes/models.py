"""The networks of nano-sd and nano-sdxl: SD v1.5's and SDXL's layouts at widths that two CPU cores can train.

Both draw 64x64 pictures. nano-sd has four levels, so its latents are 32x32 (the autoencoder halves a picture once);
nano-sdxl has three, so 16x16 latents do (the autoencoder halves twice). Either way the innermost level sees 4x4.
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from world import SIZE

# Both worlds have one tokenizer layout.
sys.path.append(str(Path(__file__).resolve().parent.parent / "nano-sd"))
from bpe import write_tokenizer  # noqa: E402, F401

CONTEXT = 77  # tokens a text encoder reads
# Stronger at the end than Stable Diffusion's (`beta_end` 0.012): what shows through the noise is not learned from the caption.
NOISE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.02, beta_schedule="scaled_linear",
             prediction_type="v_prediction", steps_offset=1)


def text_settings(tokenizer):
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=CONTEXT, hidden_act="quick_gelu", projection_dim=64,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )


def new_vae(widths):
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=SIZE, norm_num_groups=4,
        block_out_channels=widths, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(widths), up_block_types=("UpDecoderBlock2D",) * len(widths),
    )


class NanoSd:
    """SD v1.5: two innermost levels of one width, one block per transformer, convolutional projections."""

    name, vae_widths = "nano-sd", (16, 32)
    steps, batch = 12_000, 16

    @staticmethod
    def new_vae():
        return new_vae(NanoSd.vae_widths)

    @staticmethod
    def new_unet():
        unet = UNet2DConditionModel(
            sample_size=32, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(16, 32, 80, 80),
            norm_num_groups=8, attention_head_dim=(1, 2, 4, 4), cross_attention_dim=64,
        )
        unet.set_attn_processor(AttnProcessor2_0())  # 1,024 pixels on the outermost level: fused is faster on a CPU too
        return unet

    @staticmethod
    def new_encoders(tokenizer):
        return {"text_encoder": CLIPTextModel(text_settings(tokenizer))}

    @staticmethod
    def new_scheduler():
        return DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False)

    @staticmethod
    def condition(encoders, tokens, empty_tokens, dropped):
        """The U-Net's conditions for a batch; a dropped caption becomes the empty one, as the pipeline's negative is."""
        tokens = empty_tokens.where(dropped[:, None], tokens)
        return dict(encoder_hidden_states=encoders["text_encoder"](tokens).last_hidden_state)


class NanoSdxl:
    """SDXL: no transformer on the outermost level, 2 and 10 blocks on the others, linear projections, pooled text.

    The depths are SDXL's own, so that the layouts of SSD-1B, Vega and KOALA mean here what they mean there.
    """

    name, vae_widths = "nano-sdxl", (24, 32, 48)
    steps, batch = 2_600, 32  # the optimiser's products cost a fifth of a step, so fewer and larger steps

    @staticmethod
    def new_vae():
        return new_vae(NanoSdxl.vae_widths)

    @staticmethod
    def new_unet():
        unet = UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(32, 48, 64),
            norm_num_groups=8, attention_head_dim=(2, 3, 4), cross_attention_dim=128, use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), addition_embed_type="text_time", addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=6 * 16 + 64,
        )
        unet.set_attn_processor(AttnProcessor())  # at most 64 pixels: plain products are faster on a CPU
        return unet

    @staticmethod
    def new_encoders(tokenizer):
        settings = text_settings(tokenizer)
        return {"text_encoder": CLIPTextModel(settings), "text_encoder_2": CLIPTextModelWithProjection(settings)}

    @staticmethod
    def new_scheduler():
        return EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", interpolation_type="linear")

    @staticmethod
    def condition(encoders, tokens, empty_tokens, dropped):
        """Each encoder's last state but one, and the second's pooled text; zeros for a dropped caption."""
        first = encoders["text_encoder"](tokens, output_hidden_states=True)
        second = encoders["text_encoder_2"](tokens, output_hidden_states=True)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        kept = (~dropped).float()
        ids = torch.tensor([SIZE, SIZE, 0, 0, SIZE, SIZE], dtype=torch.float32, device=tokens.device)
        added = dict(text_embeds=second.text_embeds * kept[:, None], time_ids=ids.repeat(len(tokens), 1))
        return dict(encoder_hidden_states=states * kept[:, None, None], added_cond_kwargs=added)


MODELS = {model.name: model for model in (NanoSd, NanoSdxl)}
