"""Sampling trajectories of diffusers, for tests/sample.rs.

Writes trajectories.safetensors beside this file. Per (config, sampler, steps):
  <name>.timesteps  what the model was told
  <name>.inputs     [evaluations + 1, 1, 1, 2, 4]: what the model was fed before each step, then the final latents
and, shared by all, `noise`, the initial noise, and `fresh`, [30, 1, 1, 2, 4], what a sampler adds after each step.

The model is a function cheap enough to be the same in any language: 0.3 x + sin(t / 100). `inputs` are taken after
`scale_model_input`, so for Euler too they have unit variance.

Made with diffusers 0.42.1, torch 2.11.0, numpy 2.x on a CPU.
"""

import json
import math
from functools import partial
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
)
from safetensors.torch import save_file

HERE = Path(__file__).parent
SAMPLERS = {
    "ddim": DDIMScheduler.from_config,
    "dpm-solver++-2m": DPMSolverMultistepScheduler.from_config,
    "euler": EulerDiscreteScheduler.from_config,
    "euler-ancestral": EulerAncestralDiscreteScheduler.from_config,
    # The default is Runge-Kutta steps first, which no Stable Diffusion uses.
    "pndm": partial(PNDMScheduler.from_config, skip_prk_steps=True),
}
STEPS = (1, 4, 20, 30)
SEED = 2404_11098


def model(latents, timestep):
    return 0.3 * latents + math.sin(float(timestep) / 100)


def trajectory(scheduler, steps, noise):
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.init_noise_sigma
    inputs = []
    # The draws of `fresh` again.
    adds_noise = isinstance(scheduler, EulerAncestralDiscreteScheduler)
    options = {"generator": torch.Generator().manual_seed(SEED)} if adds_noise else {}
    for timestep in scheduler.timesteps:
        fed = scheduler.scale_model_input(latents, timestep)
        inputs.append(fed)
        latents = scheduler.step(model(fed, timestep), timestep, latents, **options).prev_sample
    return scheduler.timesteps.to(torch.float32), torch.stack([*inputs, latents])


# From -2 to 2, so that no element is an accident.
noise = torch.linspace(-2, 2, 8).reshape(1, 1, 2, 4)
generator = torch.Generator().manual_seed(SEED)
fresh = torch.stack([torch.randn(noise.shape, generator=generator) for _ in range(max(STEPS))])
tensors = {"noise": noise, "fresh": fresh}
for config_name, config in json.loads((HERE / "configs.json").read_text()).items():
    for sampler_name, scheduler in SAMPLERS.items():
        if sampler_name == "pndm" and config.get("rescale_betas_zero_snr"):
            # diffusers' PNDM ignores the key and would sample another schedule.
            continue
        for steps in STEPS:
            timesteps, inputs = trajectory(scheduler(config), steps, noise)
            name = f"{config_name}/{sampler_name}/{steps}"
            tensors[f"{name}.timesteps"] = timesteps.contiguous()
            tensors[f"{name}.inputs"] = inputs.contiguous()
save_file(tensors, HERE / "trajectories.safetensors")
