"""The U-Net of a pruned Stable Diffusion model, for diffusers (written against 0.42).

`config.json` beside this file lists the removed units by module path in `removed_units`. The stock
network is built from the config, then each removed module gives way to what remains of it: nothing,
the 1x1 shortcut of a ResNet whose width changes, or, for the modules in `linear_units`, a linear map
that stands in its place: a ResNet's or Transformer2D's `conv_shortcut`, and `linear` inside a
Transformer2D. A removed attention or feed-forward layer of a
transformer block takes its norm along. What is kept has its original name.

    DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    AutoModel.from_pretrained(folder + "/unet", trust_remote_code=True)
"""

import inspect

import torch
from torch import nn

from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel, Transformer2DModelOutput


class RemovedResnet(nn.Module):
    """A ResNet without its residual branch."""

    def __init__(self, resnet, linear):
        super().__init__()
        self.conv_shortcut = resnet.conv_shortcut
        if linear:
            self.conv_shortcut = nn.Conv2d(resnet.out_channels, resnet.out_channels, 1)

    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states if self.conv_shortcut is None else self.conv_shortcut(hidden_states)


class RemovedBlock(nn.Module):
    """A transformer block that is gone."""

    def __init__(self, channels, linear):
        super().__init__()
        self.linear = nn.Linear(channels, channels) if linear else nn.Identity()

    def forward(self, hidden_states, *args, **kwargs):
        return self.linear(hidden_states)


class RemovedPart(nn.Module):
    """An attention or feed-forward layer of a transformer block that is gone: it adds nothing, or what a map changes."""

    def __init__(self, channels, linear):
        super().__init__()
        self.linear = nn.Linear(channels, channels) if linear else None

    def forward(self, hidden_states, *args, **kwargs):
        # Its norm is gone too, so these are the states that the block adds the result to.
        if self.linear is None:
            return torch.zeros_like(hidden_states)
        return self.linear(hidden_states) - hidden_states


class RemovedTransformer(nn.Module):
    """A Transformer2D that is gone with its blocks and its projections."""

    def __init__(self, transformer, linear):
        super().__init__()
        channels = transformer.in_channels
        self.conv_shortcut = nn.Conv2d(channels, channels, 1) if linear else nn.Identity()

    def forward(self, hidden_states, *args, return_dict=True, **kwargs):
        hidden_states = self.conv_shortcut(hidden_states)
        return Transformer2DModelOutput(sample=hidden_states) if return_dict else (hidden_states,)


NORMS = {"attn1": "norm1", "attn2": "norm2", "ff": "norm3"}


class PrunedUNet2DConditionModel(UNet2DConditionModel):
    """`UNet2DConditionModel` without the modules that `removed_units` names; of these, `linear_units` have a linear map."""

    def __init__(self, *args, removed_units=(), linear_units=(), **kwargs):
        super().__init__(*args, **kwargs)
        for path in removed_units:
            parent, _, name = path.rpartition(".")
            removed, linear = self.get_submodule(path), path in linear_units
            if isinstance(removed, ResnetBlock2D):
                remains = RemovedResnet(removed, linear)
            elif isinstance(removed, Transformer2DModel):
                remains = RemovedTransformer(removed, linear)
            elif name in NORMS:
                remains = RemovedPart(self.get_submodule(parent).dim, linear)
                setattr(self.get_submodule(parent), NORMS[name], nn.Identity())
            else:
                remains = RemovedBlock(removed.dim, linear)
            setattr(self.get_submodule(parent), name, remains)
        self.register_to_config(removed_units=list(removed_units), linear_units=list(linear_units))

    # diffusers reads the names that a config may have from this signature.
    __init__.__signature__ = inspect.Signature(
        [
            *inspect.signature(UNet2DConditionModel.__init__).parameters.values(),
            inspect.Parameter("removed_units", inspect.Parameter.KEYWORD_ONLY, default=()),
            inspect.Parameter("linear_units", inspect.Parameter.KEYWORD_ONLY, default=()),
        ]
    )
