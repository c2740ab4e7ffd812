"""Trains nano-sd and nano-sdxl from scratch on the world of scenes: autoencoder, latents, U-Net with text encoders.

    python train.py nano-sd --scratch /tmp/scenes            # all stages, going on from what is already there
    python train.py nano-sdxl --scratch /tmp/scenes unet    # one stage

Stages: vae, latents, text, unet, save. Each can be killed at any time and goes on from its last checkpoint, at
most --save-minutes old. The two models share the scratch folder's pictures, so run them beside each other, each on
its own core: two single-threaded trainings waste less of two cores than one with two threads.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from models import CONTEXT, MODELS, write_tokenizer
from world import BACKGROUNDS, LOOKS, PATTERNS, RELATIONS, SIZE, draw, random_scene, vocabulary

SEED = 16
BLOCK = 2_000  # scenes per file of pictures and of latents
DECAY = 0.4  # the share of a training, at its end, in which the rate falls


# ---------------------------------------------------------------- data


def scenes_of(block, three):
    """The training scenes of one block: none of a held-out combination, no held-out caption."""
    rng, scenes = np.random.default_rng([SEED, block]), []
    held_out = {scene.caption() for scene in held_out_scenes(three)}
    while len(scenes) < BLOCK:
        scene = random_scene(rng, three)
        if not scene.holds_held_out_pair() and scene.caption() not in held_out:
            scenes.append(scene)
    return scenes


def held_out_scenes(three, count=500, combinations=False):
    """Scenes never trained on: fresh captions, or captions with a pair of colour and shape that training lacks."""
    rng, scenes = np.random.default_rng([SEED, 1_000_000 + combinations]), []
    while len(scenes) < count:
        scene = random_scene(rng, three)
        if scene.holds_held_out_pair() == combinations:
            scenes.append(scene)
    return scenes


def pictures_of(block, options):
    """One picture of each of the block's scenes, uint8 [BLOCK, SIZE, SIZE, 3]; drawn once and then read."""
    path = options.scratch / "pictures" / f"{block:03}.npy"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        rng = np.random.default_rng([SEED, 2_000_000 + block])
        save_whole(path, np.stack([draw(scene, rng) for scene in scenes_of(block, options.three)]))
    return np.load(path, mmap_mode="r")


def write_prompts(folder, options):
    """Prompt lists: to calibrate with and to distil with, both trained on; held-out captions and combinations."""
    folder.mkdir(exist_ok=True)
    trained = scenes_of(0, options.three)
    lists = {"calibration": trained[:96], "training": trained[96:608], "evaluation": held_out_scenes(options.three)[:200],
             "combinations": held_out_scenes(options.three, combinations=True)[:200]}
    for name, scenes in lists.items():
        (folder / f"{name}.txt").write_text("".join(scene.caption() + "\n" for scene in scenes))


def save_whole(path, array):
    """Writes a file so that an interruption never leaves half of it."""
    partial = path.with_suffix(f".{os.getpid()}")  # the other model's training may write the same file
    with open(partial, "wb") as file:
        np.save(file, array)
    partial.rename(path)


def as_tensor(pictures):
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def tokens_of(tokenizer, captions):
    return torch.tensor(tokenizer(captions, padding="max_length", max_length=CONTEXT, truncation=True).input_ids)


# ---------------------------------------------------------------- training


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal (Jordan et al. 2024), scaled to the size of AdamW's steps.

    Every direction of a matrix learns at one rate, so that a small U-Net needs fewer steps. Weights of one shape go
    through the products together; a convolution counts as a matrix of its output channels.
    """

    def __init__(self, weights, rate, momentum=0.95):
        super().__init__(weights, dict(lr=rate, momentum=momentum, weight_decay=0.01))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for weight in group["params"]:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight, memory_format=torch.contiguous_format))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(mean, group["momentum"]).reshape(len(weight), -1)
                shapes.setdefault(ahead.shape, []).append((weight, ahead))
            for shape, pairs in shapes.items():
                steps = orthogonal(torch.stack([ahead for _, ahead in pairs])) * (0.2 * max(shape) ** 0.5)
                for (weight, _), change in zip(pairs, steps):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change.view(weight.shape), alpha=group["lr"])


def orthogonal(matrices):
    """The nearest matrices [n, rows, columns] with equal singular values, by five steps of Newton and Schulz."""
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x if wide else x.mT


class Training:
    """AdamW (Muon for `matrices`) with warm-up, constant rate and a linear end, an average of the weights, a checkpoint."""

    def __init__(self, path, modules, options, steps, rate, average=0.999, matrices=()):
        self.path, self.modules, self.steps, self.rate, self.average = path, modules, steps, rate, average
        self.device, self.save_seconds = options.device, 60 * options.save_minutes
        for module in modules.values():
            module.to(self.device)
        self.weights = [p for m in modules.values() for p in m.parameters()]
        apart = {id(weight) for weight in matrices}
        others = [weight for weight in self.weights if id(weight) not in apart]
        self.optimisers = [torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)]
        if matrices:
            self.optimisers.append(Muon(matrices, rate))
        self.mean = [p.detach().clone() for p in self.weights]
        self.step, self.seconds = 0, 0.0
        if path.exists():
            saved = torch.load(path, map_location=self.device)
            for name, module in modules.items():
                module.load_state_dict(saved["modules"][name])
            for optimiser, state in zip(self.optimisers, saved["optimisers"]):
                optimiser.load_state_dict(state)
            self.mean, self.step, self.seconds = saved["mean"], saved["step"], saved["seconds"]

    def run(self, loss_of, every=100):
        torch.manual_seed(SEED + self.step)
        rng = np.random.default_rng([SEED, self.step])
        clock, processor, total, count = time.time(), time.process_time(), 0.0, 0
        saved_at = clock
        while self.step < self.steps:
            rate = self.rate * min(1, (self.step + 1) / 150, (self.steps - self.step) / (DECAY * self.steps))
            loss = loss_of(rng, self.step / self.steps)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.step()
                optimiser.zero_grad()
            self.step += 1
            keep = min(self.average, self.step / (10 + self.step))
            torch._foreach_lerp_(self.mean, [p.detach() for p in self.weights], 1 - keep)
            total, count = total + loss.item(), count + 1
            if self.step % every == 0:
                now, used = time.time(), time.process_time()
                print(f"{self.path.stem} step {self.step}/{self.steps} loss {total / count:.5f}, {(now - clock) / count:.2f} s a step, "
                      f"{(used - processor) / count:.2f} s of processor", flush=True)
                self.seconds += now - clock
                clock, processor, total, count = now, used, 0.0, 0
            if time.time() - saved_at > self.save_seconds or self.step == self.steps:
                self.save()
                saved_at = time.time()

    def save(self):
        state = dict(modules={name: m.state_dict() for name, m in self.modules.items()},
                     optimisers=[optimiser.state_dict() for optimiser in self.optimisers], mean=self.mean, step=self.step, seconds=self.seconds)
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(self.path)


def load_average(path, modules):
    """Puts a checkpoint's averaged weights into its first modules; returns its step and seconds of training."""
    saved = torch.load(path, map_location="cpu")
    means = iter(saved["mean"])
    for name, module in modules.items():
        module.load_state_dict(saved["modules"][name])
        for weight in module.parameters():
            weight.data.copy_(next(means))
        module.eval()
    return saved["step"], saved["seconds"]


# ---------------------------------------------------------------- stages


def stage_vae(model, options):
    """Reconstruction with a trace of KL; windows first, which are cheaper and hold any phase of the patterns."""
    torch.manual_seed(SEED)
    pictures = np.concatenate([pictures_of(block, options) for block in range(min(5, options.blocks))])
    vae = model.new_vae().to(memory_format=torch.channels_last)
    vae.quant_conv.bias.data[4:] -= 6  # begin with hardly any noise in the latents

    def loss_of(rng, progress):
        if progress < 0.6:
            chosen, corners = rng.integers(len(pictures), size=16), rng.integers(SIZE // 2 + 1, size=(16, 2))
            batch = np.stack([pictures[i, y : y + 32, x : x + 32] for i, (y, x) in zip(chosen, corners)])
        else:
            batch = pictures[rng.integers(len(pictures), size=4)]
        pixels = as_tensor(batch).to(options.device)
        posterior = vae.encode(pixels).latent_dist
        restored = vae.decode(posterior.sample()).sample
        error = F.l1_loss(restored, pixels) + 4 * F.mse_loss(restored, pixels)
        return error + 2e-7 * posterior.kl().mean() * (SIZE * SIZE / pixels[0, 0].numel())

    path = options.scratch / f"{model.name}-vae.pt"
    Training(path, {"vae": vae}, options, options.vae_steps, 2e-3, average=0.995).run(loss_of)


def stage_latents(model, options):
    """Encodes the pictures."""
    folder = options.scratch / f"{model.name}-latents"
    folder.mkdir(exist_ok=True)
    finished = options.scratch / f"{model.name}-vae"
    if not finished.exists():
        finish_vae(model, options).save_pretrained(finished)
    vae = AutoencoderKL.from_pretrained(finished).to(options.device, memory_format=torch.channels_last)
    for block in range(options.blocks):
        path = folder / f"{block:03}.npy"
        if not path.exists():
            latents = encode(vae, pictures_of(block, options)) * vae.config.scaling_factor
            save_whole(path, latents.half().numpy())


def finish_vae(model, options):
    """Centres and balances the latent channels inside the autoencoder, and sets its scaling factor; or takes that of --go-on."""
    if options.go_on:
        return AutoencoderKL.from_pretrained(options.go_on / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    vae = model.new_vae()
    load_average(options.scratch / f"{model.name}-vae.pt", {"vae": vae})
    vae = vae.to(options.device, memory_format=torch.channels_last)
    sample = encode(vae, pictures_of(0, options)[:1000])
    mean, spread = sample.mean((0, 2, 3)), sample.std((0, 2, 3))
    gain = spread.mean() / spread
    fold_latent_change(vae, mean.to(options.device), gain.to(options.device))
    vae.register_to_config(scaling_factor=round(1 / spread.mean().item(), 5))
    return vae


def encode(vae, pictures):
    with torch.no_grad():
        parts = [as_tensor(pictures[i : i + 50]).to(vae.device) for i in range(0, len(pictures), 50)]
        return torch.cat([vae.encode(part).latent_dist.mode().cpu() for part in parts])


def fold_latent_change(vae, mean, gain):
    """Makes the autoencoder's latent z become (z - mean) * gain and leaves what it reconstructs exactly as it was."""
    leave, enter = vae.quant_conv, vae.post_quant_conv
    leave.weight.data[:4] *= gain[:, None, None, None]
    leave.bias.data[:4] = (leave.bias.data[:4] - mean) * gain
    leave.bias.data[4:] += 2 * gain.log()
    enter.bias.data += enter.weight.data[:, :, 0, 0] @ mean
    enter.weight.data /= gain[None, :, None, None]


class Examples:
    """Tokens and latents of every training scene."""

    def __init__(self, model, tokenizer, options):
        folder, self.device = options.scratch / f"{model.name}-latents", options.device
        captions = [scene.caption() for block in range(options.blocks) for scene in scenes_of(block, options.three)]
        self.tokens = tokens_of(tokenizer, captions).short()
        self.latents = torch.cat([torch.from_numpy(np.load(folder / f"{block:03}.npy")) for block in range(options.blocks)])

    def batch(self, rng, size):
        chosen = torch.from_numpy(rng.integers(len(self.latents), size=size))
        return self.tokens[chosen].long().to(self.device), self.latents[chosen].float().to(self.device), chosen


class Readout(torch.nn.Module):
    """Reads a scene out of the text states by one attention with fixed queries, as a U-Net's cross-attention has to.

    Queries stand for the first to third object and the background, and for the places of a coarse picture.
    """

    COARSE = 8  # side of the coarse picture

    def __init__(self, width, labels):
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(len(labels) + self.COARSE**2, 64) / 8)
        self.attention = torch.nn.MultiheadAttention(64, 4, kdim=width, vdim=width, batch_first=True)
        self.inner = torch.nn.Sequential(torch.nn.LayerNorm(64), torch.nn.Linear(64, 128), torch.nn.SiLU())
        self.labels = torch.nn.ModuleList(torch.nn.Linear(128, sum(part)) for part in labels)
        self.coarse, self.choices = torch.nn.Linear(128, 4), labels

    def forward(self, states, wanted, clean):
        """Cross entropy of all attributes, and the squared error of the clean latents at the coarse size."""
        queries = self.queries.expand(len(states), -1, -1)
        found = self.inner(self.attention(queries, states, states, need_weights=False)[0])
        scores = [part for k, head in enumerate(self.labels) for part in head(found[:, k]).split(self.choices[k], -1)]
        named = sum(F.cross_entropy(score, wanted[:, k], ignore_index=-1, reduction="sum") for k, score in enumerate(scores))
        coarse = self.coarse(found[:, len(self.labels) :]).transpose(1, 2).reshape(-1, 4, self.COARSE, self.COARSE)
        return named / len(scores) / len(states) + (coarse - F.adaptive_avg_pool2d(clean, self.COARSE)).square().mean()


def stage_text(model, options):
    """The text encoders learn first what a caption says, as SD's have; the U-Net's training goes on with them."""
    torch.manual_seed(SEED)
    tokenizer = write_tokenizer(options.scratch / f"{model.name}-tokenizer", vocabulary())
    encoders, examples = model.new_encoders(tokenizer), Examples(model, tokenizer, options)
    wanted = [scene.labels() for block in range(options.blocks) for scene in scenes_of(block, options.three)]
    wanted = torch.tensor(wanted, device=options.device)
    labels = [*[[len(values) for values in LOOKS.values()]] * 3, [len(RELATIONS), len(PATTERNS), len(BACKGROUNDS)]]
    readout = Readout(model.new_unet().config.cross_attention_dim, labels)
    empty = tokens_of(tokenizer, [""]).to(options.device)
    kept = torch.zeros(64, dtype=torch.bool, device=options.device)

    def loss_of(rng, progress):
        tokens, clean, chosen = examples.batch(rng, len(kept))
        return readout(model.condition(encoders, tokens, empty, kept)["encoder_hidden_states"], wanted[chosen], clean)

    path = options.scratch / f"{model.name}-text.pt"
    Training(path, {**encoders, "readout": readout}, options, options.text_steps, 2e-3, average=0.99).run(loss_of)


class DeepSupervision(torch.nn.Module):
    """Linear heads that must see the clean latent in what the middle and each up block but the last return; dropped after training."""

    def __init__(self, unet):
        super().__init__()
        widths = unet.config.block_out_channels[::-1]
        self.heads = torch.nn.ModuleList(torch.nn.Conv2d(width, 4, 1) for width in (widths[0], *widths[:-1]))
        self.seen = [None] * len(self.heads)
        for i, block in enumerate([unet.mid_block, *unet.up_blocks[:-1]]):
            block.register_forward_hook(lambda block, inputs, output, i=i: self.seen.__setitem__(i, output))

    def forward(self, clean):
        losses = []
        for head, seen in zip(self.heads, self.seen):
            target = F.adaptive_avg_pool2d(clean, seen.shape[-1])
            losses.append((head(seen) - target).square().mean())
        return sum(losses) / len(losses)


class HiddenCaptions:
    """Hides each example's caption from a random number of outer levels, so that the inner ones learn to read it.

    The middle always sees it. Without this the outer transformers read all of it, and inner levels have nothing to do.
    """

    def __init__(self, unet):
        downs, ups = list(unet.down_blocks), list(unet.up_blocks)
        levels = [(down, up) for down, up in zip(downs, reversed(ups))] + [(unet.mid_block,)]
        found = [[part for block in level for part in block.modules() if isinstance(part, Transformer2DModel)] for level in levels]
        self.levels = [transformers for transformers in found if transformers]
        self.first = None  # for each example, the outermost of these levels that sees its caption; all of them without it
        for level, transformers in enumerate(self.levels):
            for transformer in transformers:
                transformer.register_forward_pre_hook(lambda _, inputs, named, level=level: self.hide(level, inputs, named), with_kwargs=True)

    def hide(self, level, inputs, named):
        if self.first is not None:
            sees = (self.first <= level)[:, None, None]
            named = named | {"encoder_hidden_states": named["encoder_hidden_states"] * sees}
        return inputs, named

    def choose(self, examples, device):
        self.first = torch.randint(len(self.levels), (examples,), device=device)

    def show(self):
        self.first = None


def stage_unet(model, options):
    """Prediction of the velocity; the text encoders are trained along."""
    torch.manual_seed(SEED)
    tokenizer = write_tokenizer(options.scratch / f"{model.name}-tokenizer", vocabulary())
    encoders, unet = model.new_encoders(tokenizer), model.new_unet()
    if options.go_on:
        for name, module in {**encoders, "unet": unet}.items():
            module.load_state_dict(type(module).from_pretrained(options.go_on / name, torch_dtype=torch.float32).state_dict())
    else:
        load_average(options.scratch / f"{model.name}-text.pt", encoders)
    supervision, hidden = DeepSupervision(unet), HiddenCaptions(unet)
    examples, batch = Examples(model, tokenizer, options), options.batch or model.batch
    empty = tokens_of(tokenizer, [""]).to(options.device)
    signal = model.new_scheduler().alphas_cumprod.to(options.device)

    def loss_of(rng, progress):
        tokens, clean, _ = examples.batch(rng, batch)
        dropped = torch.rand(batch, device=options.device) < 0.1
        t = torch.randint(len(signal), (batch,), device=options.device)
        a, noise = signal[t][:, None, None, None], torch.randn_like(clean)
        noisy, velocity = a.sqrt() * clean + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * clean
        if progress < 1 - DECAY:
            hidden.choose(batch, options.device)
        else:
            hidden.show()
        predicted = unet(noisy, t, **model.condition(encoders, tokens, empty, dropped)).sample
        return (predicted - velocity).square().mean() + options.supervision * supervision(clean)

    modules = {**encoders, "unet": unet, "supervision": supervision}  # the last is not saved, see stage_save
    path = options.scratch / f"{model.name}-unet.pt"
    steps, ends = options.unet_steps or model.steps, ("conv_in.", "conv_out.")
    matrices = [weight for name, weight in unet.named_parameters() if weight.dim() > 1 and not name.startswith(ends)]
    Training(path, modules, options, steps, options.rate, average=0.9995, matrices=matrices).run(loss_of)


def stage_save(model, options):
    """Writes the pipeline as float16 safetensors, and prompt lists, to --out: of a model that is or still gets trained."""
    tokenizer = write_tokenizer(options.scratch / f"{model.name}-tokenizer", vocabulary())
    modules = {**model.new_encoders(tokenizer), "unet": model.new_unet()}
    step, seconds = load_average(options.scratch / f"{model.name}-unet.pt", modules)
    vae = AutoencoderKL.from_pretrained(options.scratch / f"{model.name}-vae")
    for module in (*modules.values(), vae):
        module.half()
        assert all(torch.isfinite(weight).all() for weight in module.parameters())
    folder = options.out or options.scratch / model.name
    parts = dict(vae=vae, tokenizer=tokenizer, scheduler=model.new_scheduler(), **modules)
    if model.name == "nano-sdxl":
        pipe = StableDiffusionXLPipeline(**parts, tokenizer_2=tokenizer, force_zeros_for_empty_prompt=True, add_watermarker=False)
    else:
        pipe = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(folder)
    settings = json.loads((folder / "vae" / "config.json").read_text())
    settings.pop("_name_or_path", None)  # the scratch folder
    (folder / "vae" / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    for name in [path.name for path in folder.glob("tokenizer*")]:  # the classic file layout, not only tokenizer.json
        (folder / name / "tokenizer.json").unlink(missing_ok=True)
        for path in (options.scratch / f"{model.name}-tokenizer").iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
    write_prompts(folder / "prompts", options)
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    print(f"{folder}: step {step}, {seconds / 3600:.1f} hours of training, {size / 1e6:.2f} MB of weights")


STAGES = {"vae": stage_vae, "latents": stage_latents, "text": stage_text, "unet": stage_unet, "save": stage_save}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("stages", nargs="*", help=f"which of: {' '.join(STAGES)} (default: all)")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for pictures and checkpoints")
    parser.add_argument("--go-on", type=Path, metavar="FOLDER", help="begin with a saved pipeline of this model, not from scratch")
    parser.add_argument("--out", type=Path, help="where `save` writes the pipeline (default: in the scratch folder)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--three", type=float, default=0.1, help="share of scenes with three objects")
    parser.add_argument("--blocks", type=int, default=50, help=f"blocks of {BLOCK:,} training scenes")
    parser.add_argument("--vae-steps", type=int, default=4000)
    parser.add_argument("--text-steps", type=int, default=2000)
    lengths = ", ".join(f"{model.name} {model.steps:,}" for model in MODELS.values())
    parser.add_argument("--unet-steps", type=int, help=f"default: {lengths}")
    parser.add_argument("--rate", type=float, default=3e-3, help="learning rate of the U-Net")
    sizes = ", ".join(f"{model.name} {model.batch}" for model in MODELS.values())
    parser.add_argument("--batch", type=int, help=f"examples in a step of the U-Net (default: {sizes})")
    parser.add_argument("--supervision", type=float, default=0.2, help="weight of the inner levels' loss")
    parser.add_argument("--save-minutes", type=float, default=2, help="minutes between checkpoints")
    options = parser.parse_intermixed_args()
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"no stage {', '.join(sorted(unknown))}")
    options.scratch.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    finished = ("vae", "text") if options.go_on else ()
    for name in options.stages or [name for name in STAGES if name not in finished]:
        print(f"{options.model}: {name}, {time.strftime('%H:%M')}", flush=True)
        STAGES[name](MODELS[options.model], options)


if __name__ == "__main__":
    main()
