"""Trains a CLIP scorer on the world: pictures against their captions and against captions wrong in one respect.

    python scorer.py --scratch /tmp/scenes    # resumes; shares the pictures of train.py; writes scorer/

The exact reader (reader.py) is the better judge of these pictures. The scorer is for measures that need a CLIP model.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from models import text_settings, write_tokenizer
from train import BLOCK, SEED, Training, as_tensor, held_out_scenes, load_average, pictures_of, scenes_of, tokens_of
from world import SIZE, draw, variants, vocabulary

WORDS = 32  # tokens read while training: no caption is longer, and the text tower is causal
WRONG = 3  # wrong captions for each picture


def new_scorer(tokenizer):
    vision = dict(image_size=SIZE, patch_size=8, hidden_size=96, intermediate_size=384, num_hidden_layers=4,
                  num_attention_heads=4, hidden_act="quick_gelu", projection_dim=64)
    text = text_settings(tokenizer).to_dict()
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def train(tokenizer, options):
    """A picture chooses among all captions of the batch, right and wrong ones; a caption among all pictures."""
    torch.manual_seed(SEED)
    scorer = new_scorer(tokenizer)
    pictures = [pictures_of(block, options) for block in range(options.blocks)]
    scenes = [scenes_of(block, options.three) for block in range(options.blocks)]

    def loss_of(rng, progress):
        chosen = [divmod(i, BLOCK) for i in rng.integers(BLOCK * len(pictures), size=options.batch)]
        right = [scenes[block][i] for block, i in chosen]
        wrong = []
        for scene in right:
            others = list(variants(scene, rng).values())
            wrong += [others[i] for i in rng.choice(len(others), WRONG, replace=False)]
        tokens = tokens_of(tokenizer, [scene.caption() for scene in right + wrong])[:, :WORDS].to(options.device)
        pixels = as_tensor(np.stack([pictures[block][i] for block, i in chosen])).to(options.device)
        scores = scorer(input_ids=tokens, pixel_values=pixels).logits_per_image  # [pictures, captions]
        target = torch.arange(len(right), device=options.device)
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores[:, : len(right)].T, target)) / 2

    Training(options.scratch / "scorer.pt", {"scorer": scorer}, options, options.steps, 1e-3).run(loss_of)


def save(tokenizer, options):
    folder, scorer = options.scratch / "scorer", new_scorer(tokenizer)
    load_average(options.scratch / "scorer.pt", {"scorer": scorer})
    scorer.half().save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE},
                       image_mean=half, image_std=half).save_pretrained(folder)
    write_tokenizer(folder, vocabulary())
    return scorer.float()


def check(scorer, tokenizer, options):
    """How often a fresh drawing's caption beats the one that is wrong in one respect, for each respect."""
    rng, right = np.random.default_rng(99), defaultdict(list)
    with torch.no_grad():
        for scene in held_out_scenes(options.three):
            wrong = variants(scene, rng)
            tokens = tokens_of(tokenizer, [scene.caption(), *(other.caption() for other in wrong.values())])
            scores = scorer(input_ids=tokens, pixel_values=as_tensor(draw(scene, rng)[None])).logits_per_image[0]
            for name, score in zip(wrong, scores[1:]):
                right[name].append(bool(score < scores[0]))
            right["all"].append(bool(scores.argmax() == 0))
    figures = {name: round(float(np.mean(values)), 4) for name, values in right.items()}
    (options.scratch / "scorer" / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder of pictures and checkpoints")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--three", type=float, default=0.1, help="share of scenes with three objects")
    parser.add_argument("--blocks", type=int, default=50, help=f"blocks of {BLOCK:,} training scenes")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=64, help="pictures in a step")
    parser.add_argument("--save-minutes", type=float, default=2, help="minutes between checkpoints")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = write_tokenizer(options.scratch / "tokenizer", vocabulary())
    train(tokenizer, options)
    check(save(tokenizer, options), tokenizer, options)


if __name__ == "__main__":
    main()
