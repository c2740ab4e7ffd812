"""The plain way to score every unit, for `cargo bench --bench score` (torch 2.11.0, diffusers 0.42.1): each unit is taken
out in turn and the whole U-Net runs again on the same points.

make   saves a U-Net of SD v1.5's shape with random weights, and the points that both sides take
run    prints {"seconds": the fastest of the rounds}, writes the losses by unit
"""

import contextlib
import json
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.attention import BasicTransformerBlock
from safetensors.torch import load_file, save_file

import side

# SD v1.5 (stable-diffusion-v1-5/unet/config.json) at a quarter of its width.
QUARTER = dict(
    sample_size=32, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(80, 160, 320, 320), norm_num_groups=16
)


def make(folder):
    torch.manual_seed(0)
    UNet2DConditionModel(**QUARTER).save_pretrained(folder / "unet")


def points(config, count):
    generator = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(shape, generator=generator)
    latents = (count, config.in_channels, config.sample_size, config.sample_size)
    return dict(
        sample=normal(*latents),
        noise=normal(*latents),
        timestep=torch.linspace(10, 900, count).long(),
        encoder_hidden_states=normal(count, 77, config.cross_attention_dim),
    )


def units(unet):
    """Residual branches by path. A Transformer2D of one block is one unit; of more, each block is one too."""
    for path, module in unet.named_modules():
        if isinstance(module, (ResnetBlock2D, Transformer2DModel)):
            yield path, module
        elif isinstance(module, BasicTransformerBlock):
            transformer = unet.get_submodule(path.rpartition(".transformer_blocks.")[0])
            if len(transformer.transformer_blocks) > 1:
                yield path, module


@contextlib.contextmanager
def without(module):
    """The module replaced by what is left when its branch is gone."""

    def forward(hidden_states, *arguments, **more):
        shortcut = getattr(module, "conv_shortcut", None)
        left = hidden_states if shortcut is None else shortcut(hidden_states)
        return (left,) if isinstance(module, Transformer2DModel) else left

    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def score(unet, given):
    predict = lambda: unet(given["sample"], given["timestep"], given["encoder_hidden_states"]).sample
    teacher = predict()
    losses = {}
    for path, module in units(unet):
        with without(module):
            losses[path] = torch.nn.functional.mse_loss(predict().float(), teacher.float())
    return {path: float(loss) for path, loss in losses.items()}


@torch.no_grad()
def run(arguments):
    unet = UNet2DConditionModel.from_pretrained(arguments.folder, subfolder="unet", torch_dtype=arguments.dtype)
    unet = unet.to(arguments.device)
    file = arguments.folder / "points.safetensors"
    save_file(points(unet.config, arguments.points), file)
    given = {name: tensor.to(arguments.device) for name, tensor in load_file(file).items()}
    given = {name: t.to(arguments.dtype) if t.is_floating_point() else t for name, t in given.items()}
    seconds = float("inf")
    for _ in range(arguments.rounds):
        begun = time.perf_counter()
        losses = score(unet, given)
        side.synchronise(arguments.device)
        seconds = min(seconds, time.perf_counter() - begun)
    (arguments.folder / "torch.json").write_text(json.dumps(losses))
    print(json.dumps(dict(seconds=seconds)))


arguments = side.arguments()
arguments.add_argument("--make", action="store_true")
arguments.add_argument("--folder", type=Path, required=True)
arguments.add_argument("--points", type=int)
arguments.add_argument("--rounds", type=int)
arguments = arguments.parse_args()
torch.set_num_threads(arguments.threads)
if arguments.make:
    make(arguments.folder)
else:
    run(arguments)
