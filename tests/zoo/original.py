"""Names of the original layout (single files), after diffusers' scripts/convert_diffusers_to_original_*.py, which is not in
the package. `check` reads each conversion back with diffusers' own reader."""

import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

RESNET = [
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"),
]
OUTSIDE = [
    ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
]
TEXT = [
    ("encoder.layers.", "resblocks."), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), (".fc1.", ".c_fc."),
    (".fc2.", ".c_proj."), (".self_attn", ".attn"),
]


def renamed(name, prefixes):
    for ours, theirs in prefixes:
        if name.startswith(ours + "."):
            return theirs + name[len(ours):]
    raise KeyError(name)


def unet(state, config):
    """A U-Net's tensors under the original names, without a prefix."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    prefixes = list(OUTSIDE)

    def resnet(path, place):
        prefixes.extend((f"{path}.{ours}", f"{place}.{theirs}") for ours, theirs in RESNET)

    for level in range(levels):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        for layer in range(layers + 1):
            place = f"input_blocks.{(layers + 1) * level + layer + 1}"
            resnet(f"{down}.resnets.{layer}", f"{place}.0")
            prefixes.append((f"{down}.attentions.{layer}", f"{place}.1"))
            place = f"output_blocks.{(layers + 1) * level + layer}"
            resnet(f"{up}.resnets.{layer}", f"{place}.0")
            prefixes.append((f"{up}.attentions.{layer}", f"{place}.1"))
        attends = config["up_block_types"][level].startswith("CrossAttn")
        prefixes.append((f"{down}.downsamplers.0.conv", f"input_blocks.{(layers + 1) * (level + 1)}.0.op"))
        prefixes.append((f"{up}.upsamplers.0", f"output_blocks.{(layers + 1) * level + layers}.{2 if attends else 1}"))
    for index in range(2):
        resnet(f"mid_block.resnets.{index}", f"middle_block.{2 * index}")
    prefixes.append(("mid_block.attentions.0", "middle_block.1"))
    found = {renamed(name, prefixes): tensor for name, tensor in state.items()}
    again = convert_ldm_unet_checkpoint({"model.diffusion_model." + name: found[name] for name in found}, config=config)
    check(again, state)
    return found


def vae(state, config):
    """An autoencoder's tensors under the original names."""
    count, found = len(config["block_out_channels"]), {}
    for name, tensor in state.items():
        place = name
        for level in range(count):
            place = place.replace(f"encoder.down_blocks.{level}.resnets.", f"encoder.down.{level}.block.")
            place = place.replace(f"down_blocks.{level}.downsamplers.0.", f"down.{level}.downsample.")
            place = place.replace(f"decoder.up_blocks.{level}.resnets.", f"decoder.up.{count - 1 - level}.block.")
            place = place.replace(f"up_blocks.{level}.upsamplers.0.", f"up.{count - 1 - level}.upsample.")
        for index in range(2):
            place = place.replace(f"mid_block.resnets.{index}.", f"mid.block_{index + 1}.")
        place = place.replace("mid_block.attentions.0.", "mid.attn_1.")
        place = place.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "attn_1" in place:
            for ours, theirs in [("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out.")]:
                place = place.replace(ours, theirs)
            if tensor.dim() == 2:
                tensor = tensor[:, :, None, None]
        found[place] = tensor
    again = convert_ldm_vae_checkpoint({"first_stage_model." + name: found[name] for name in found}, config=config)
    check(again, state)
    return found


def open_clip(state):
    """A text encoder's tensors under OpenCLIP's names."""
    found, joined = {}, {}
    for name, tensor in state.items():
        name = name.removeprefix("text_model.")
        if name == "embeddings.token_embedding.weight":
            found["token_embedding.weight"] = tensor
        elif name == "embeddings.position_embedding.weight":
            found["positional_embedding"] = tensor
        elif name.startswith("final_layer_norm"):
            found[name.replace("final_layer_norm", "ln_final")] = tensor
        elif name == "text_projection.weight":
            found["text_projection"] = tensor.T.contiguous()
        elif name.startswith("encoder.layers."):
            for ours, theirs in TEXT:
                name = name.replace(ours, theirs)
            name = "transformer." + name
            for index, letter in enumerate("qkv"):
                if f".{letter}_proj." in name:
                    joined.setdefault(name.replace(f".{letter}_proj.", ".in_proj_"), {})[index] = tensor
                    break
            else:
                found[name] = tensor
    found |= {name: torch.cat([parts[index] for index in range(3)]) for name, parts in joined.items()}
    return found


def check(again, state):
    assert again.keys() == state.keys(), sorted(again.keys() ^ state.keys())[:4]
    assert all(torch.equal(again[name].reshape(state[name].shape), state[name]) for name in state)
