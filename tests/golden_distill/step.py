"""Writes steps.safetensors: two whole training steps as torch and diffusers compute them. The weights are those of
tests/golden; the teacher's are 1.25 times the student's, which f32 holds exactly.

    python tests/golden_distill/step.py

Stores the L2 norm of each tensor and at most 16 of its numbers, in the order of the names. Made with the versions of tests/golden/versions.json.
"""

import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
SEED = 2404_11098
BETAS = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
CASES = {
    "sd15": ("unet_sd15", "epsilon", None),
    "velocity": ("unet_sd15", "v_prediction", 5.0),
    "sdxl": ("unet_sdxl", "epsilon", 5.0),
}


def summary(tensor):
    flat = tensor.detach().flatten()
    return torch.cat([flat.norm()[None], flat[:: -(-len(flat) // 16)]])


def answer(unet, batch):
    maps = {}
    stages = {f"down_blocks.{i}": block for i, block in enumerate(unet.down_blocks)}
    stages |= {"mid_block": unet.mid_block}
    stages |= {f"up_blocks.{i}": block for i, block in enumerate(unet.up_blocks)}

    def keep(path):
        return lambda _, __, output: maps.update({path: output[0] if isinstance(output, tuple) else output})

    hooks = [block.register_forward_hook(keep(path)) for path, block in stages.items()]
    added = {name: batch[name] for name in ["text_embeds", "time_ids"] if name in batch}
    output = unet(batch["noisy"], batch["timestep"], batch["text"], added_cond_kwargs=added or None).sample
    for hook in hooks:
        hook.remove()
    return output, maps


def case(name):
    golden, prediction, gamma = CASES[name]
    with safe_open(HERE.parent / f"golden/{golden}.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        weights = {key[8:]: file.get_tensor(key) for key in file.keys() if key.startswith("weights.")}
        inputs = {key[7:]: file.get_tensor(key) for key in file.keys() if key.startswith("inputs.")}
    student, teacher = (UNet2DConditionModel.from_config(config).train() for _ in range(2))
    student.load_state_dict(weights)
    teacher.load_state_dict({key: 1.25 * value for key, value in weights.items()})
    schedule = DDPMScheduler(**BETAS, prediction_type=prediction)

    generator = torch.Generator().manual_seed(SEED)
    latents = torch.randn(inputs["sample"].shape, generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    timestep = torch.tensor([700, 20])
    batch = {
        "noisy": schedule.add_noise(latents, noise, timestep),
        "timestep": timestep,
        "text": inputs["encoder_hidden_states"],
    } | {key: value for key, value in inputs.items() if key in ("text_embeds", "time_ids")}
    target = noise if prediction == "epsilon" else schedule.get_velocity(latents, noise, timestep)
    of_sample = torch.ones(2)
    if gamma:
        snr = compute_snr(schedule, timestep)
        of_sample = torch.clamp(snr, max=gamma) / (snr if prediction == "epsilon" else snr + 1)

    with torch.no_grad():
        wanted, wanted_maps = answer(teacher, batch)
    paths = sorted(wanted_maps)
    mean = lambda a, b: ((a - b) ** 2).mean()
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=1e-2)
    average = EMAModel(student.parameters(), decay=0.9999)
    found, scale, gradients = {"latents": latents, "noise": noise}, None, None
    for step in range(2):
        output, maps = answer(student, batch)
        task = ((output - target) ** 2).mean(dim=(1, 2, 3)) * of_sample
        losses = [task.mean(), mean(output, wanted)] + [mean(maps[path], wanted_maps[path]) for path in paths]
        if scale is None:
            inverse = torch.stack([(wanted_maps[path] ** 2).mean().reciprocal() for path in paths])
            plain = torch.stack(losses[2:]).detach()
            scale = inverse * plain.sum() / (inverse * plain).sum()
        total = losses[0] + losses[1] + (scale * torch.stack(losses[2:])).sum()
        optimiser.zero_grad()
        total.backward()
        # Those of the first step: Adam's first update magnifies the rounding of small gradients.
        gradients = gradients or {key: value.grad.clone() for key, value in student.named_parameters()}
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), max_norm=1.0)
        optimiser.step()
        average.step(student.parameters())
        found[f"terms.{step}"] = torch.stack(losses).detach()
        found[f"norm.{step}"] = norm[None]
    found["scale"] = scale
    names = [key for key, _ in student.named_parameters()]
    shadows = dict(zip(names, average.shadow_params))
    for kind, tensors in [("gradient", gradients), ("weight", dict(student.named_parameters())), ("average", shadows)]:
        found[kind] = torch.cat([summary(tensors[key]) for key in sorted(names)])
    return {f"{name}.{key}": value.detach().contiguous() for key, value in found.items()}


if __name__ == "__main__":
    tensors = {}
    for name in CASES:
        tensors |= case(name)
    save_file(tensors, HERE / "steps.safetensors")
