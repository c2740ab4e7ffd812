"""Measures the saved model as a user would load it and writes figures.json."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from world import Scene, all_scenes, draw

HERE = Path(__file__).resolve().parent
ATTRIBUTES = Scene._fields
SAMPLING_STEPS = 20


class Judge:
    """Names a picture by the caption of the whole world that the scorer likes best."""

    def __init__(self):
        self.scorer = CLIPModel.from_pretrained(HERE / "scorer", dtype=torch.float32).eval()
        self.processor = CLIPImageProcessor.from_pretrained(HERE / "scorer")
        self.scenes = all_scenes()
        tokenizer = CLIPTokenizer.from_pretrained(HERE / "scorer")
        ids = tokenizer([scene.caption() for scene in self.scenes], padding=True, return_tensors="pt").input_ids
        with torch.no_grad():
            features = torch.cat([self.scorer.get_text_features(input_ids=part).pooler_output for part in ids.split(256)])
        self.captions = features / features.norm(dim=-1, keepdim=True)

    def name(self, images):
        pixels = self.processor(images, return_tensors="pt").pixel_values
        with torch.no_grad():
            features = self.scorer.get_image_features(pixel_values=pixels).pooler_output
        return [self.scenes[i] for i in (features @ self.captions.T).argmax(1)]

    def share_right(self, images, scenes):
        """Share of pictures whose named attributes are the wanted ones, for each attribute and together."""
        right = np.array([[a == b for a, b in zip(named, wanted)] for named, wanted in zip(self.name(images), scenes)])
        shares = {name: right[:, k].mean() for k, name in enumerate(ATTRIBUTES)}
        shares["shape_and_colour"] = right[:, :2].all(1).mean()
        shares["everything"] = right.all(1).mean()
        return {name: round(float(share), 4) for name, share in shares.items()}


def paint(pipe, scenes, guidance, seed=7, steps=SAMPLING_STEPS, batch=50):
    images = []
    for start in range(0, len(scenes), batch):
        prompts = [scene.caption() for scene in scenes[start : start + batch]]
        generators = [torch.Generator().manual_seed(seed * 100_000 + start + k) for k in range(len(prompts))]
        images += pipe(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generators).images
    return images


def sheet(images, columns=20):
    rows = [np.concatenate([np.asarray(i) for i in images[n : n + columns]], 1) for n in range(0, len(images), columns)]
    return Image.fromarray(np.concatenate([row for row in rows if row.shape == rows[0].shape]))


def load_pipeline():
    pipe = StableDiffusionPipeline.from_pretrained(HERE, dtype=torch.float32)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def restoration(vae, images):
    """Peak signal-to-noise ratio in decibels of what the autoencoder gives back."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        restored = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    error = ((restored - pixels) / 2).square().mean((1, 2, 3))
    return restored, round(float((-10 * error.log10()).mean()), 2)


def unet_macs(unet):
    """Multiply-accumulates of the convolutions and linear layers in one forward of one 16x16 latent."""
    total = 0

    def count(layer, _, output):
        nonlocal total
        total += output.numel() * (layer.weight[0].numel() if layer.weight.ndim == 4 else layer.in_features)

    hooks = [m.register_forward_hook(count) for m in unet.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    with torch.no_grad():
        unet(torch.zeros(1, 4, 16, 16), 0, torch.zeros(1, 77, unet.config.cross_attention_dim))
    for hook in hooks:
        hook.remove()
    return total


def stage_check(options):
    judge, pipe = Judge(), load_pipeline()
    rng = np.random.default_rng(12345)  # not the generator the training pictures came from
    scenes = all_scenes()
    fresh = [scenes[i] for i in rng.choice(len(scenes), 1000, replace=False)]
    real = [draw(scene, rng) for scene in fresh]
    restored, decibels = restoration(pipe.vae, real[:200])
    figures = {
        "parameters": {name: sum(p.numel() for p in getattr(pipe, name).parameters()) for name in ("unet", "vae", "text_encoder")},
        "unet_mmacs": round(unet_macs(pipe.unet) / 1e6, 1),
        "megabytes_of_weights": round(sum(p.stat().st_size for p in HERE.rglob("*.safetensors")) / 1e6, 2),
        "training": {p.stem: {k: round(v) for k, v in torch.load(p).items() if k in ("step", "seconds")}
                     for p in sorted(options.scratch.glob("*.pt"))},
        "scorer_on_1000_fresh_pictures": judge.share_right(real, fresh),
        "vae": {"psnr_db": decibels, "scaling_factor": pipe.vae.config.scaling_factor},
        "teacher_on_200_held_out_captions": {},
        "sampler": f"DPM-Solver++ 2M, {SAMPLING_STEPS} steps",
    }
    figures["parameters"]["scorer"] = sum(p.numel() for p in judge.scorer.parameters())
    both = [np.concatenate([a, b], 1) for a, b in zip(real, ((restored + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())]
    sheet(both, 10).crop((0, 0, 1280, 640)).save(options.scratch / "vae.png")

    wanted = by_caption((HERE / "prompts" / "evaluation.txt").read_text().splitlines(), scenes)
    for guidance in options.guidance:
        images = paint(pipe, wanted, guidance)
        sheet(images).save(options.scratch / f"guidance_{guidance:g}.png")
        figures["teacher_on_200_held_out_captions"][f"guidance {guidance:g}"] = judge.share_right(images, wanted)
    text = json.dumps(figures, indent=2)
    (HERE / "figures.json").write_text(text + "\n")
    print(text)


def by_caption(captions, scenes):
    table = {scene.caption(): scene for scene in scenes}
    return [table[caption] for caption in captions]
