"""Reads a picture back into its scene by matching it with what the world draws; there is nothing to train.

The background is the one of the eighteen that leaves the least difference; objects are the connected parts that
differ from it. An object's shape and size are those of the silhouette that overlaps it best, its colour and texture
those whose two shades are nearest to its pixels, and the relation is the layout nearest to where the objects lie.

    python reader.py    # its own errors on 1,000 drawings: as drawn, blurred, noisy
"""

import itertools
import json
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

from world import (BACKGROUNDS, CELL, COLOURS, PATTERNS, PLACES, RADII, SHAPES, SIZE, TEXTURES, Thing, dark_shade, draw,
                   ground, other_shade, random_scene, silhouette)

DIFFERS = 34.0  # distance in RGB from which a pixel is no background; the nearest shade of an object is 52 away
LEAST_AREA = 25  # pixels of the smallest part that counts as an object; the smallest star has 80
LEAST_OVERLAP = 0.6  # intersection over union below which a part has no shape of this world
WINDOW = 33
ATTRIBUTES = ("count", "size", "texture", "colour", "shape", "relation", "pattern", "background")


class Found(NamedTuple):
    """One object as it was read; `overlap` is the intersection over union with the best silhouette."""

    thing: Thing
    x: float
    y: float
    overlap: float


class Reading(NamedTuple):
    pattern: str
    background: str
    found: list


class Reader:
    def __init__(self):
        self.grounds = [(pattern, name) for pattern in PATTERNS for name in BACKGROUNDS]
        self.ground_pixels = torch.tensor(np.stack([ground(*kind) for kind in self.grounds]), dtype=torch.float32)
        row, column = np.mgrid[0:SIZE, 0:SIZE] % CELL
        self.edges = {
            "plain": torch.zeros(SIZE, SIZE, dtype=torch.bool),
            "striped": torch.from_numpy((column == 0) | (column == CELL - 1)),
            "checked": torch.from_numpy((column == 0) | (column == CELL - 1) | (row == 0) | (row == CELL - 1)),
        }
        self.silhouettes, self.kinds = all_silhouettes()
        self.shades = torch.tensor(np.stack([[colour, dark_shade(colour)] for colour in COLOURS.values()]), dtype=torch.float32)

    def read(self, pictures):
        """Readings of uint8 pictures [n, SIZE, SIZE, 3]."""
        return [reading for i in range(0, len(pictures), 64) for reading in self.read_some(pictures[i : i + 64])]

    def read_some(self, pictures):
        pixels = torch.from_numpy(np.ascontiguousarray(pictures)).float()
        best = torch.stack([(pixels - kind).square().sum(-1).clamp(max=60.0**2).mean((1, 2)) for kind in self.ground_pixels]).argmin(0)
        differs = torch.stack([self.difference(one, int(kind)) for one, kind in zip(pixels, best)]) > DIFFERS
        readings = []
        for one, mask, parts, kind in zip(pixels, differs, connected_parts(differs), best):
            masks = [parts == label for label in parts[mask].unique()]
            masks = [part for part in masks if part.sum() >= LEAST_AREA]
            readings.append(Reading(*self.grounds[kind], [self.look(one, part, self.ground_pixels[kind]) for part in masks]))
        return readings

    def difference(self, pixels, kind):
        """Each pixel's distance from the background; where two cells meet, from anything between their shades."""
        pattern, name = self.grounds[kind]
        distance = (pixels - self.ground_pixels[kind]).norm(dim=-1)
        first = torch.tensor(BACKGROUNDS[name], dtype=torch.float32)
        step = torch.tensor(other_shade(name), dtype=torch.float32) - first
        share = ((pixels - first) @ step / step.square().sum()).clamp(0, 1)
        between = (pixels - first - share[..., None] * step).norm(dim=-1)
        return torch.where(self.edges[pattern], between, distance)

    def look(self, pixels, part, under):
        texture, colour = self.paint(pixels, part)
        part = self.covered(pixels, part, under, texture, colour)
        rows, columns = part.nonzero(as_tuple=True)
        y, x = rows.float().mean().item(), columns.float().mean().item()
        window = torch.zeros(WINDOW, WINDOW)
        to_row, to_column = rows - round(y) + WINDOW // 2, columns - round(x) + WINDOW // 2
        inside = (to_row >= 0) & (to_row < WINDOW) & (to_column >= 0) & (to_column < WINDOW)
        window[to_row[inside], to_column[inside]] = 1
        common = self.silhouettes @ window.flatten()
        overlaps = common / (self.silhouettes.sum(1) + len(rows) - common)
        overlap, best = overlaps.max(0)
        shape, size = self.kinds[best] if overlap >= LEAST_OVERLAP else ("none", self.kinds[best][1])
        return Found(Thing(size, texture, colour, shape), x, y, overlap.item())

    def covered(self, pixels, part, under, texture, colour):
        """The pixels that the object covers by more than half: a blurred edge must not make it larger."""
        shades = self.shades[tuple(COLOURS).index(colour)][: 1 + (texture == "striped")]
        step = shades - under[:, :, None]  # [rows, columns, shades, 3]
        share = (((pixels - under)[:, :, None] * step).sum(-1) / step.square().sum(-1)).clamp(0, 1)
        error = ((pixels - under)[:, :, None] - share[..., None] * step).norm(dim=-1)
        share = torch.where(error < error.min(-1, keepdim=True).values + 10, share, 0).amax(-1)
        near = F.max_pool2d(part[None].float(), 3, 1, 1)[0] > 0
        mask = near & (share > 0.5)
        return mask if mask.any() else part

    def paint(self, pixels, part):
        """Texture and colour of an object, from its pixels away from its edge."""
        inner = -F.max_pool2d(-part[None].float(), 3, 1, 1)[0] > 0
        values = pixels[inner if inner.sum() >= 12 else part]  # [pixels, 3]
        distance = (values[:, None, None] - self.shades).norm(dim=-1)  # [pixels, colours, shades]
        colour = distance.min(-1).values.square().clamp(max=100.0**2).mean(0).argmin()
        dark = (distance[:, colour].argmin(-1) == 1).float().mean()
        return TEXTURES[int(dark > 0.2)], tuple(COLOURS)[colour]


def all_silhouettes():
    """Masks [n, WINDOW * WINDOW], centred like a part is, and each one's shape and size."""
    middle, masks, kinds = WINDOW / 2, [], []
    for shape, radius in itertools.product(SHAPES, np.arange(6, 15.01, 0.5)):
        size = min(RADII, key=lambda size: abs(RADII[size] - radius))
        for turn, right, down in itertools.product((-7, 0, 7), (-0.33, 0, 0.33), (-0.33, 0, 0.33)):
            centre = silhouette(shape, radius, math.radians(turn), (middle, middle), WINDOW)
            rows, columns = np.nonzero(centre > 0.5)
            shift = middle - 0.5 - columns.mean() + right, middle - 0.5 - rows.mean() + down
            mask = silhouette(shape, radius, math.radians(turn), (middle + shift[0], middle + shift[1]), WINDOW)
            masks.append(mask.flatten() > 0.5)
            kinds.append((shape, size))
    return torch.from_numpy(np.stack(masks)).float(), kinds


def connected_parts(masks):
    """Labels of masks [n, SIZE, SIZE]: equal for pixels that touch, by edge or corner; 0 outside."""
    numbers = torch.arange(1, SIZE * SIZE + 1, dtype=torch.float32).view(SIZE, SIZE)
    labels = numbers * masks
    while True:
        spread = F.max_pool2d(labels[:, None], 3, 1, 1)[:, 0] * masks
        if torch.equal(spread, labels):
            return labels
        labels = spread


def compare(reading, scene):
    """Which attributes of the scene its picture has; `everything` is their conjunction.

    The objects found are matched to the wanted ones so that most attributes agree, and of equal matches the one
    nearest to the wanted places counts. The relation is right where this match stands in the wanted layout.
    """
    wanted, places = scene.things, PLACES[scene.relation, len(scene.things)]
    right = dict.fromkeys(ATTRIBUTES, False)
    right["pattern"], right["background"] = reading.pattern == scene.pattern, reading.background == scene.background
    right["count"] = len(reading.found) == len(wanted)
    if right["count"]:
        def rank(order):
            agree = sum(a == b for found, thing in zip(order, wanted) for a, b in zip(found.thing, thing))
            return agree, -distance_to(order, places)

        order = max(itertools.permutations(reading.found), key=rank)
        for k, name in enumerate(Thing._fields):
            right[name] = all(found.thing[k] == thing[k] for found, thing in zip(order, wanted))
        nearest = min(layouts(len(wanted)), key=lambda layout: distance_to(order, layout))
        right["relation"] = nearest == places
    right["everything"] = all(right.values())
    return right


def layouts(count):
    """Every order of places in which objects stand: three may swap the two that share a side only by their names."""
    return [places for (_, number), places in PLACES.items() if number == count] + [
        (first, third, second) for (_, number), (first, second, *rest) in PLACES.items() if number == count for third in rest
    ]


def distance_to(order, places):
    return sum(math.hypot(found.x - x, found.y - y) for found, (x, y) in zip(order, places))


def shares(readings, scenes):
    """Share of pictures with each attribute right."""
    rights = [compare(reading, scene) for reading, scene in zip(readings, scenes)]
    return {name: round(float(np.mean([right[name] for right in rights])), 4) for name in (*ATTRIBUTES, "everything")}


def main():
    """Shares right on drawings, and on drawings that are blurred or noisy as a poor autoencoder's would be."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(2024)
    scenes = [random_scene(rng, three=0.25) for _ in range(1000)]
    drawings = np.stack([draw(scene, rng) for scene in scenes])
    blurred = np.stack([np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(0.9))) for one in drawings])
    noisy = np.clip(drawings + rng.normal(0, 10, drawings.shape), 0, 255).astype(np.uint8)
    reader = Reader()
    for name, pictures in (("as drawn", drawings), ("blurred, sigma 0.9 pixels", blurred), ("noise of 10 of 255", noisy)):
        error = np.square((pictures.astype(float) - drawings) / 255).mean((1, 2, 3))
        decibels = {} if pictures is drawings else {"psnr_db": round(float(np.mean(-10 * np.log10(error))), 1)}
        print(json.dumps({name: {**decibels, **shares(reader.read(pictures), scenes)}}), flush=True)


if __name__ == "__main__":
    main()
