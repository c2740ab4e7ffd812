"""torch's side of `cargo bench --bench distill` (torch 2.11.0, diffusers 0.42.1).

make   saves a U-Net with random weights, as diffusers does
run    times steps of retraining: prints {"seconds": fastest, ...}
"""

import json
import time
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch.nn.functional import mse_loss

import side

CONFIGS = {
    "sd15-quarter": dict(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(80, 160, 320, 320),
        norm_num_groups=16,
    ),
}


def make(folder, family):
    torch.manual_seed(0)
    UNet2DConditionModel(**CONFIGS[family]).save_pretrained(folder / "unet")


def hooked(unet):
    """The outputs of the stages, filled by each forward pass."""
    maps = {}

    def keep(name):
        def hook(module, inputs, output):
            maps[name] = output[0] if isinstance(output, tuple) else output

        return hook

    stages = [*enumerate(unet.down_blocks), ("mid", unet.mid_block)]
    stages += [(f"up{index}", block) for index, block in enumerate(unet.up_blocks)]
    for name, block in stages:
        if block is not None:
            block.register_forward_hook(keep(name))
    return maps


def run(arguments):
    load = lambda: UNet2DConditionModel.from_pretrained(arguments.folder, subfolder="unet")
    teacher, student = load().requires_grad_(False).eval(), load().train()
    with torch.no_grad():
        for weight in student.parameters():
            weight.mul_(0.9)
    of_teacher, of_student = hooked(teacher), hooked(student)
    optimiser = torch.optim.AdamW(student.parameters(), lr=5e-5, weight_decay=1e-2, fused=True)
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    config, rows = student.config, 2 * arguments.batch
    latents = torch.randn(rows, config.in_channels, arguments.size, arguments.size)
    text = torch.randn(rows, 77, config.cross_attention_dim)

    def step():
        chosen = torch.randperm(rows)[: arguments.batch]
        noise = torch.randn_like(latents[chosen])
        timestep = torch.randint(0, 1000, (arguments.batch,))
        noisy = schedule.add_noise(latents[chosen], noise, timestep)
        with torch.no_grad():
            wanted = teacher(noisy, timestep, text[chosen]).sample
        found = student(noisy, timestep, text[chosen]).sample
        loss = mse_loss(found, noise) + mse_loss(found, wanted)
        loss = loss + sum(mse_loss(of_student[name], map) for name, map in of_teacher.items())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        return loss.item()

    step()
    seconds = float("inf")
    for _ in range(arguments.turns):
        begun = time.perf_counter()
        step()
        seconds = min(seconds, time.perf_counter() - begun)
    print(json.dumps(dict(seconds=seconds, activation_bytes=0, peak_bytes=0)))


arguments = side.arguments()
arguments.add_argument("--make")
arguments.add_argument("--folder", type=Path, required=True)
arguments.add_argument("--batch", type=int)
arguments.add_argument("--size", type=int)
arguments.add_argument("--turns", type=int)
arguments = arguments.parse_args()
torch.set_num_threads(arguments.threads)
if arguments.make:
    make(arguments.folder, arguments.make)
else:
    run(arguments)
