"""Makes the whole of examples/nano-sd: a complete Stable Diffusion small enough to live in a repository.

laptop-diff prunes and distils Stable Diffusion U-Nets. Its tests and its demonstration need a teacher
that has SD v1.5's exact shape, that really draws what its caption says, and that a laptop without a
GPU can evaluate in minutes. No such model exists, so this script trains one on a procedural world
(world.py), together with a CLIP scorer that judges its pictures.

    python make.py --scratch /tmp/nano            # every stage, resuming what is already there
    python make.py --scratch /tmp/nano unet save  # only some stages

Stages: world, scorer, vae, latents, unet, save, check. Long stages keep checkpoints in the scratch folder.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bpe import write_tokenizer
from world import SIZE, all_scenes, draw, neighbours

HERE = Path(__file__).resolve().parent
SEED = 20
COPIES = 7  # pictures drawn of each caption
WORDS = 16  # tokens the scorer reads while training: no caption is longer, and its text tower is causal

SCENES = all_scenes()
CAPTIONS = [scene.caption() for scene in SCENES]


def split():
    """Caption indices: (training, calibration within training, evaluation never trained on)."""
    order = np.random.default_rng(SEED).permutation(len(SCENES))
    held_out, training = order[:240], order[240:]
    return np.sort(training), np.sort(training[:96]), held_out[:200]


# ---------------------------------------------------------------- models


def text_settings(tokenizer):
    return dict(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=64,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )


def new_scorer(tokenizer):
    vision = dict(image_size=SIZE, patch_size=8, hidden_size=96, intermediate_size=384, num_hidden_layers=3,
                  num_attention_heads=4, hidden_act="quick_gelu", projection_dim=64)
    return CLIPModel(CLIPConfig(text_config=text_settings(tokenizer), vision_config=vision, projection_dim=64))


def new_text_encoder(tokenizer):
    return CLIPTextModel(CLIPTextConfig(**text_settings(tokenizer)))


def new_vae():
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=SIZE, norm_num_groups=4,
        block_out_channels=(16, 24, 32), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    )


def new_unet():
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(32, 48, 80, 48),
        norm_num_groups=8, attention_head_dim=4, cross_attention_dim=64,
    )


def new_scheduler():
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        prediction_type="epsilon", steps_offset=1, clip_sample=False, set_alpha_to_one=False,
    )


# ---------------------------------------------------------------- training helpers


class Training:
    """An optimiser with warm-up, constant rate and a linear end, a moving average, and a checkpoint to resume from."""

    def __init__(self, path, modules, steps, rate, average=0.999):
        self.path, self.modules, self.steps, self.rate, self.average = path, modules, steps, rate, average
        self.weights = [p for m in modules.values() for p in m.parameters()]
        self.optimiser = torch.optim.AdamW(self.weights, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.mean = [p.detach().clone() for p in self.weights]
        self.step, self.seconds = 0, 0.0
        if path.exists():
            saved = torch.load(path)
            for name, module in modules.items():
                module.load_state_dict(saved["modules"][name])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.mean, self.step, self.seconds = saved["mean"], saved["step"], saved["seconds"]

    def run(self, loss_of, every=100, save_every=500):
        torch.manual_seed(SEED + self.step + 1_000_000 * worker())
        rng = np.random.default_rng([SEED, self.step, worker()])
        started, total = time.time(), 0.0
        while self.step < self.steps:
            rate = self.rate * min(1, (self.step + 1) / 100, (self.steps - self.step) / (0.4 * self.steps))
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(rng, self.step)
            self.optimiser.zero_grad()
            loss.backward()
            average_gradients(self.weights)
            torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimiser.step()
            self.step += 1
            keep = min(self.average, self.step / (10 + self.step))
            torch._foreach_lerp_(self.mean, [p.detach() for p in self.weights], 1 - keep)
            total += loss.item()
            if self.step % every == 0 and worker() == 0:
                elapsed = self.seconds + time.time() - started
                print(f"{self.path.stem} step {self.step}/{self.steps} loss {total / every:.4f} {elapsed:.0f} s", flush=True)
                total = 0.0
            if self.step % save_every == 0 or self.step == self.steps:
                self.save(self.seconds + time.time() - started)

    def save(self, seconds):
        if worker() != 0:
            return
        state = dict(modules={name: m.state_dict() for name, m in self.modules.items()},
                     optimiser=self.optimiser.state_dict(), mean=self.mean, step=self.step, seconds=seconds)
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(self.path)


def worker():
    return dist.get_rank() if dist.is_initialized() else 0


def average_gradients(weights):
    if not dist.is_initialized():
        return
    flat = torch.cat([weight.grad.flatten() for weight in weights])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for weight, part in zip(weights, flat.split([weight.numel() for weight in weights])):
        weight.grad.copy_(part.view_as(weight))


def work(rank, stage, options):
    """One of several single-threaded workers: on busy cores they lose far less time than one process with threads."""
    torch.set_num_threads(1)
    meeting = f"file://{options.scratch.resolve() / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.workers)
    stage(options)
    dist.destroy_process_group()


def load_average(path, modules):
    """Puts a checkpoint's averaged weights into the modules; returns its seconds of training and steps."""
    saved = torch.load(path)
    means = iter(saved["mean"])
    for name, module in modules.items():
        module.load_state_dict(saved["modules"][name])
        for weight in module.parameters():
            weight.data.copy_(next(means))
        module.eval().requires_grad_(False)
    return saved["seconds"], saved["step"]


def as_tensor(pictures):
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def pictures_of(scratch):
    """Memory-mapped uint8 [caption * COPIES + copy, SIZE, SIZE, 3]."""
    return np.load(scratch / "pictures.npy", mmap_mode="r")


def token_table(tokenizer, texts):
    return torch.tensor(tokenizer(texts, padding="max_length", max_length=77, truncation=True).input_ids)


# ---------------------------------------------------------------- stages


def stage_world(options):
    """Tokenizer, prompt lists, the shipped example pictures and the training pictures."""
    tokenizer = write_tokenizer(HERE / "tokenizer", CAPTIONS)
    for caption in (CAPTIONS[0], CAPTIONS[-1]):
        assert len(tokenizer(caption).input_ids) == len(caption.split()) + 2 <= WORDS
    training, calibration, evaluation = split()
    distilling = np.setdiff1d(training, calibration)
    np.random.default_rng(SEED).shuffle(distilling)
    prompts = HERE / "prompts"
    prompts.mkdir(exist_ok=True)
    for name, chosen in (("calibration", calibration), ("training", distilling[:512]), ("evaluation", evaluation),
                         ("world", range(len(CAPTIONS)))):
        (prompts / f"{name}.txt").write_text("".join(CAPTIONS[i] + "\n" for i in chosen))

    rng = np.random.default_rng(SEED)
    examples = HERE / "pictures"
    examples.mkdir(exist_ok=True)
    for n, i in enumerate(rng.permutation(calibration)[:32]):
        Image.fromarray(draw(SCENES[i], rng)).save(examples / f"{n:02}.png", optimize=True)
        (examples / f"{n:02}.txt").write_text(CAPTIONS[i] + "\n")
    if not (options.scratch / "pictures.npy").exists():
        np.save(options.scratch / "pictures.npy", np.stack([draw(scene, rng) for scene in SCENES for _ in range(COPIES)]))


def stage_scorer(options):
    """CLIP on the whole world; each batch holds captions together with one-attribute variants of them."""
    torch.manual_seed(SEED)
    tokenizer = CLIPTokenizer.from_pretrained(HERE / "tokenizer")
    tokens = token_table(tokenizer, CAPTIONS)[:, :WORDS]
    pictures, near = pictures_of(options.scratch), neighbours(SCENES)
    scorer = new_scorer(tokenizer)

    def loss_of(rng, step):
        bases = rng.integers(len(SCENES), size=32)
        chosen = np.concatenate([[base, *rng.choice(near[base], 3, replace=False)] for base in bases])
        pixels = as_tensor(pictures[chosen * COPIES + rng.integers(COPIES, size=len(chosen))])
        scores = scorer(input_ids=tokens[chosen], pixel_values=pixels).logits_per_image.float()
        same = torch.from_numpy(chosen[:, None] == chosen).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2

    Training(options.scratch / "scorer.pt", {"scorer": scorer}, options.scorer_steps, 1e-3).run(loss_of)


def stage_vae(options):
    """Reconstruction with a trace of KL; small windows first, which hold more shape and less flat background."""
    torch.manual_seed(SEED)
    pictures = pictures_of(options.scratch)
    vae = new_vae().to(memory_format=torch.channels_last)
    vae.quant_conv.bias.data[4:] -= 6  # begin with hardly any noise in the latents

    def loss_of(rng, step):
        if step < 0.6 * options.vae_steps:
            rows, columns = rng.integers(SIZE // 2 + 1, size=(2, 16))
            chosen = rng.integers(len(pictures), size=16)
            batch = [pictures[i, y : y + 32, x : x + 32] for i, y, x in zip(chosen, rows, columns)]
            pixels = as_tensor(np.stack(batch))
        else:
            pixels = as_tensor(pictures[rng.integers(len(pictures), size=4)])
        posterior = vae.encode(pixels).latent_dist
        restored = vae.decode(posterior.sample()).sample.float()
        error = F.l1_loss(restored, pixels) + 4 * F.mse_loss(restored, pixels)
        return error + 1e-7 * posterior.kl().float().mean()

    Training(options.scratch / "vae.pt", {"vae": vae}, options.vae_steps, 2e-3, average=0.995).run(loss_of)


def stage_latents(options):
    """Centres and balances the latent channels inside the VAE, sets its scaling factor, encodes the pictures."""
    vae = new_vae().to(memory_format=torch.channels_last)
    load_average(options.scratch / "vae.pt", {"vae": vae})
    pictures = pictures_of(options.scratch)
    latents = encode(vae, pictures)
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    gain = spread.mean() / spread
    fold_latent_change(vae, mean, gain)
    latents = (latents - mean[:, None, None]) * gain[:, None, None]
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.save_pretrained(options.scratch / "vae")
    np.save(options.scratch / "latents.npy", (latents * vae.config.scaling_factor).numpy())
    print("scaling factor", vae.config.scaling_factor)


def encode(vae, pictures):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return torch.cat([vae.encode(as_tensor(pictures[i : i + 64])).latent_dist.mode().float() for i in range(0, len(pictures), 64)])


def fold_latent_change(vae, mean, gain):
    """Makes the VAE's latent z become (z - mean) * gain, leaving what it reconstructs exactly as it was."""
    leave, enter = vae.quant_conv, vae.post_quant_conv
    leave.weight.data[:4] *= gain[:, None, None, None]
    leave.bias.data[:4] = (leave.bias.data[:4] - mean) * gain
    leave.bias.data[4:] += 2 * gain.log()
    enter.bias.data += enter.weight.data[:, :, 0, 0] @ mean
    enter.weight.data /= gain[None, :, None, None]


def stage_unet(options):
    """Epsilon prediction, the text encoder trained along; starts from the scorer's text tower."""
    torch.manual_seed(SEED)
    tokenizer = CLIPTokenizer.from_pretrained(HERE / "tokenizer")
    tokens, empty = token_table(tokenizer, CAPTIONS), token_table(tokenizer, [""])[0]
    latents = torch.from_numpy(np.load(options.scratch / "latents.npy"))
    training, _, _ = split()
    signal = new_scheduler().alphas_cumprod
    # Plain epsilon loss hardly hears the noisy steps, where the caption is decided: weigh them up.
    weights = (signal / (1 - signal)).rsqrt().clamp(0.2, 5)
    weights /= weights.mean()

    text_encoder, unet = new_text_encoder(tokenizer), new_unet().to(memory_format=torch.channels_last)
    start_from_scorer(text_encoder, options.scratch / "scorer.pt")
    unet.set_attn_processor(AttnProcessor())  # several times as fast as PyTorch's fused attention on a CPU

    def loss_of(rng, step):
        chosen = rng.choice(training, options.batch)
        clean = latents[torch.from_numpy(chosen * COPIES + rng.integers(COPIES, size=options.batch))]
        ids = tokens[torch.from_numpy(chosen)]
        ids[torch.rand(options.batch) < 0.1] = empty
        t = torch.randint(1000, (options.batch,))
        noise = torch.randn_like(clean)
        a = signal[t][:, None, None, None]
        noisy = (a.sqrt() * clean + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        predicted = unet(noisy, t, text_encoder(ids).last_hidden_state).sample.float()
        return (weights[t] * (predicted - noise).square().mean((1, 2, 3))).mean()

    modules = {"text_encoder": text_encoder, "unet": unet}
    Training(options.scratch / "unet.pt", modules, options.unet_steps, options.unet_rate).run(loss_of, every=50, save_every=250)


def start_from_scorer(text_encoder, path):
    prefix = "text_model."
    state = torch.load(path)["modules"]["scorer"]
    state = {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)}
    own_prefix = prefix if next(iter(text_encoder.state_dict())).startswith(prefix) else ""
    text_encoder.load_state_dict({own_prefix + name: value for name, value in state.items()})


def stage_save(options):
    """Writes the pipeline and the scorer as float16 safetensors."""
    tokenizer = CLIPTokenizer.from_pretrained(HERE / "tokenizer")
    text_encoder, unet, scorer = new_text_encoder(tokenizer), new_unet(), new_scorer(tokenizer)
    load_average(options.scratch / "unet.pt", {"text_encoder": text_encoder, "unet": unet})
    load_average(options.scratch / "scorer.pt", {"scorer": scorer})
    vae = AutoencoderKL.from_pretrained(options.scratch / "vae")
    for model in (text_encoder, unet, scorer, vae):
        model.half()
        assert all(torch.isfinite(weight).all() for weight in model.parameters())

    vocabulary = (HERE / "tokenizer").iterdir()
    vocabulary = {path.name: path.read_bytes() for path in vocabulary}
    StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=new_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(HERE)
    forget_origin(HERE / "vae" / "config.json")
    scorer.save_pretrained(HERE / "scorer")
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE},
                       image_mean=half, image_std=half).save_pretrained(HERE / "scorer")
    for folder in (HERE / "tokenizer", HERE / "scorer"):  # the classic file layout, not only tokenizer.json
        (folder / "tokenizer.json").unlink(missing_ok=True)
        for name, content in vocabulary.items():
            (folder / name).write_bytes(content)


def forget_origin(path):
    """Drops the folder of this machine that diffusers notes in a configuration."""
    settings = json.loads(path.read_text())
    settings.pop("_name_or_path", None)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def main():
    from check import stage_check
    stages = {"world": stage_world, "scorer": stage_scorer, "vae": stage_vae, "latents": stage_latents,
              "unet": stage_unet, "save": stage_save, "check": stage_check}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", help=f"which of: {' '.join(stages)} (default: all)")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for pictures and checkpoints")
    parser.add_argument("--workers", type=int, default=2, help="processes that train together, one core each")
    parser.add_argument("--scorer-steps", type=int, default=4000)
    parser.add_argument("--vae-steps", type=int, default=2200)
    parser.add_argument("--unet-steps", type=int, default=5000)
    parser.add_argument("--unet-rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=24, help="pictures per worker and step of the U-Net")
    parser.add_argument("--guidance", type=float, nargs="*", default=[1, 2, 3, 5], help="guidance scales to check")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.workers)
    for name in options.stages or stages:
        if name in ("scorer", "vae", "unet") and options.workers > 1:
            (options.scratch / "meeting").unlink(missing_ok=True)
            multiprocessing.spawn(work, (stages[name], options), options.workers)
        else:
            stages[name](options)


if __name__ == "__main__":
    main()
