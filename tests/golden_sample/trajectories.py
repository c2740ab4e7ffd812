"""Sampling trajectories of diffusers, for tests/sample.rs.

Writes trajectories.safetensors beside this file. Per (config, sampler, steps):
  <name>.timesteps  what the model was told
  <name>.inputs     [steps + 1, 1, 1, 2, 4]: what the model was fed before each step, then the final latents

The model is a function cheap enough to be the same in any language: 0.3 x + sin(t / 100). `inputs` are taken after
`scale_model_input`, so for Euler too they have unit variance.

Made with diffusers 0.42.1, torch 2.11.0, numpy 2.x on a CPU.
"""

import json
import math
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from safetensors.torch import save_file

HERE = Path(__file__).parent
SAMPLERS = {"ddim": DDIMScheduler, "dpm-solver++-2m": DPMSolverMultistepScheduler, "euler": EulerDiscreteScheduler}


def model(latents, timestep):
    return 0.3 * latents + math.sin(float(timestep) / 100)


def trajectory(scheduler, steps, noise):
    scheduler.set_timesteps(steps)
    latents = noise * scheduler.init_noise_sigma
    inputs = []
    for timestep in scheduler.timesteps:
        fed = scheduler.scale_model_input(latents, timestep)
        inputs.append(fed)
        latents = scheduler.step(model(fed, timestep), timestep, latents).prev_sample
    return scheduler.timesteps.to(torch.float32), torch.stack([*inputs, latents])


# From -2 to 2, so that no element is an accident.
noise = torch.linspace(-2, 2, 8).reshape(1, 1, 2, 4)
tensors = {"noise": noise}
for config_name, config in json.loads((HERE / "configs.json").read_text()).items():
    for sampler_name, scheduler_class in SAMPLERS.items():
        for steps in (1, 4, 20, 30):
            timesteps, inputs = trajectory(scheduler_class.from_config(config), steps, noise)
            name = f"{config_name}/{sampler_name}/{steps}"
            tensors[f"{name}.timesteps"] = timesteps.contiguous()
            tensors[f"{name}.inputs"] = inputs.contiguous()
save_file(tensors, HERE / "trajectories.safetensors")
