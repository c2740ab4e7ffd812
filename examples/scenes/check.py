"""Measures nano-sd or nano-sdxl as a user would load it, also while it still trains, and writes what it finds.

    python train.py nano-sd save --scratch /tmp/scenes   # the newest checkpoint as a pipeline
    python check.py /tmp/scenes/nano-sd                  # figures.json in that folder

Parts: reader (its errors on drawings and on reconstructions), pictures (attributes of held-out captions), units (what
the prediction loses when one ResNet, transformer or transformer block is missing).
"""

import argparse
import json
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from PIL import Image

from reader import Reader, shares
from train import as_tensor, held_out_scenes
from world import SIZE, draw

SAMPLING_STEPS = 20
LIVE = 1e-5  # a unit's loss relative to the largest below which it is dead


def load_pipeline(folder):
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    if not is_xl(pipe):
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def is_xl(pipe):
    return isinstance(pipe, StableDiffusionXLPipeline)


# ---------------------------------------------------------------- reader


def check_reader(pipe, options):
    """The reader on fresh drawings, and on what the autoencoder makes of them."""
    rng = np.random.default_rng(12345)  # not the generator of the training pictures
    scenes = held_out_scenes(options.three, options.drawings)
    drawings = np.stack([draw(scene, rng) for scene in scenes])
    restored = np.concatenate([restore(pipe.vae, drawings[i : i + 50]) for i in range(0, len(drawings), 50)])
    error = np.square((restored.astype(float) - drawings) / 255).mean((1, 2, 3))
    reader = Reader()
    return {
        "drawings": len(drawings),
        "right_on_drawings": shares(reader.read(drawings), scenes),
        "right_on_reconstructions": shares(reader.read(restored), scenes),
        "reconstruction_psnr_db": round(float(np.mean(-10 * np.log10(error))), 2),
    }


def restore(vae, pictures):
    with torch.no_grad():
        restored = vae.decode(vae.encode(as_tensor(pictures).to(vae.device)).latent_dist.mode()).sample
    return to_bytes(restored)


def to_bytes(pixels):
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


# ---------------------------------------------------------------- pictures


def check_pictures(pipe, options):
    reader, figures = Reader(), {}
    for name, combinations in (("held_out_captions", False), ("held_out_combinations", True)):
        scenes = held_out_scenes(options.three, options.captions, combinations)
        for guidance in options.guidance:
            images = paint(pipe, scenes, guidance)
            sheet(images).save(options.folder / f"{name}-guidance-{guidance:g}.png")
            by_count = {}
            for count in sorted({len(scene.things) for scene in scenes}):
                chosen = [i for i, scene in enumerate(scenes) if len(scene.things) == count]
                found = shares(reader.read(images[chosen]), [scenes[i] for i in chosen])
                by_count[f"{count} objects"] = {"pictures": len(chosen), **found}
            figures[f"{name}, guidance {guidance:g}"] = {"all": shares(reader.read(images), scenes), **by_count}
    sampler = "Euler" if is_xl(pipe) else "DPM-Solver++ 2M"
    return {"sampler": f"{sampler}, {SAMPLING_STEPS} steps", "right": figures}


def paint(pipe, scenes, guidance, batch=25):
    """Pictures of the scenes' captions, uint8 [n, SIZE, SIZE, 3], each from its own seed."""
    images = []
    for start in range(0, len(scenes), batch):
        prompts = [scene.caption() for scene in scenes[start : start + batch]]
        generators = [torch.Generator().manual_seed(700_000 + start + k) for k in range(len(prompts))]
        size = dict(height=SIZE, width=SIZE)
        images += pipe(prompts, num_inference_steps=SAMPLING_STEPS, guidance_scale=guidance, generator=generators, **size).images
    return np.stack([np.asarray(image) for image in images])


def sheet(images, columns=20):
    rows = [np.concatenate(images[n : n + columns], 1) for n in range(0, len(images) // columns * columns, columns)]
    return Image.fromarray(np.concatenate(rows or [images[0]]))


# ---------------------------------------------------------------- units


def check_units(pipe, options):
    """Output loss of every unit alone, of each level as a whole, and of the cheapest fifth of the parameters together."""
    predict = points(pipe, options)
    units = units_of(pipe.unet)
    whole = predict()
    variance = float((whole - whole.mean()).square().mean())

    def loss(names):
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(without(units[name]))
            return float((predict() - whole).square().mean())

    losses = {name: loss([name]) for name in units}
    size = {name: branch_parameters(unit) for name, unit in units.items()}
    apart = [name for name in units if ".transformer_blocks." not in name]  # a Transformer2D holds its blocks
    levels = {}
    for name in apart:
        levels.setdefault(".".join(name.split(".")[: 1 if name.startswith("mid") else 2]), []).append(name)
    total, cheapest = sum(p.numel() for p in pipe.unet.parameters()), []
    for name in sorted(apart, key=lambda name: losses[name] / size[name]):
        if sum(size[other] for other in cheapest) < 0.2 * total:
            cheapest.append(name)
    largest = max(losses.values())
    return {
        "points": options.points,
        "variance_of_prediction": variance,
        "largest_loss": largest,
        "least_relative_loss": min(losses.values()) / largest,
        "dead": [name for name in losses if losses[name] < LIVE * largest],
        "share_of_variance_lost_with_a_fifth_of_parameters": loss(cheapest) / variance,
        "the_fifth": cheapest,
        "share_of_variance_lost_without_level": {level: loss(names) / variance for level, names in levels.items()},
        "share_of_parameters_of_level": {level: round(sum(size[name] for name in names) / total, 3) for level, names in levels.items()},
        "relative_loss": {name: losses[name] / largest for name in sorted(losses, key=losses.get)},
    }


def points(pipe, options):
    """A function that predicts the noise of fixed noisy latents of held-out scenes at spread timesteps."""
    rng, scenes = np.random.default_rng(54321), held_out_scenes(options.three, options.points)
    pictures = as_tensor(np.stack([draw(scene, rng) for scene in scenes])).to(pipe.device)
    captions = [scene.caption() for scene in scenes]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        latents = pipe.vae.encode(pictures).latent_dist.mode() * pipe.vae.config.scaling_factor
        extra = {}
        if is_xl(pipe):
            states, _, pooled, _ = pipe.encode_prompt(captions, device=pipe.device, do_classifier_free_guidance=False)
            ids = torch.tensor([SIZE, SIZE, 0, 0, SIZE, SIZE], dtype=torch.float32, device=pipe.device)
            extra["added_cond_kwargs"] = dict(text_embeds=pooled, time_ids=ids.repeat(len(captions), 1))
        else:
            states, _ = pipe.encode_prompt(captions, pipe.device, 1, do_classifier_free_guidance=False)
    t = torch.linspace(1, 999, len(captions)).round().long().to(pipe.device)
    signal = pipe.scheduler.alphas_cumprod.to(pipe.device)[t][:, None, None, None]
    noise = torch.randn(latents.shape, generator=generator).to(pipe.device)
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise

    def predict():
        with torch.no_grad():
            return pipe.unet(noisy, t, encoder_hidden_states=states, **extra).sample

    return predict


def units_of(unet):
    """ResNets, whole Transformer2Ds, and the blocks of those that have several; by their names."""
    units = {}
    for name, module in unet.named_modules():
        several = isinstance(module, BasicTransformerBlock) and len(unet.get_submodule(name.rpartition(".")[0])) > 1
        if several or isinstance(module, (ResnetBlock2D, Transformer2DModel)):
            units[name] = module
    return units


def branch_parameters(unit):
    kept = getattr(unit, "conv_shortcut", None)
    return sum(p.numel() for p in unit.parameters()) - (sum(p.numel() for p in kept.parameters()) if kept else 0)


@contextmanager
def without(unit):
    """Leaves the identity, or a ResNet's shortcut, in place of the unit."""
    whole = unit.forward
    if isinstance(unit, ResnetBlock2D):
        unit.forward = lambda states, *_, **__: unit.conv_shortcut(states) if unit.conv_shortcut is not None else states
    elif isinstance(unit, Transformer2DModel):
        unit.forward = lambda states, *_, **__: (states,)
    else:
        unit.forward = lambda states, *_, **__: states
    try:
        yield
    finally:
        unit.forward = whole


PARTS = {"reader": check_reader, "pictures": check_pictures, "units": check_units}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a saved pipeline")
    parser.add_argument("parts", nargs="*", help=f"which of: {' '.join(PARTS)} (default: all)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--three", type=float, default=0.1, help="share of scenes with three objects, as in training")
    parser.add_argument("--guidance", type=float, nargs="*", default=[1, 3], help="guidance scales")
    parser.add_argument("--captions", type=int, default=200, help="held-out captions, and as many held-out combinations")
    parser.add_argument("--drawings", type=int, default=500, help="drawings for the reader's own errors (at most 500)")
    parser.add_argument("--points", type=int, default=64, help="noisy latents for the units' losses")
    options = parser.parse_intermixed_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    torch.set_num_threads(options.threads)
    pipe = load_pipeline(options.folder).to(options.device)
    path = options.folder / "figures.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    names = [name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)]
    figures["parameters"] = {name: sum(p.numel() for p in getattr(pipe, name).parameters()) for name in names}
    for name in options.parts or PARTS:
        figures[name] = PARTS[name](pipe, options)
        path.write_text(json.dumps(figures, indent=2) + "\n")
        print(json.dumps({name: figures[name]}, indent=2), flush=True)


if __name__ == "__main__":
    main()
