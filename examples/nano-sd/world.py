"""The little world that nano-sd knows: one flat shape on a flat background.

A picture is described by five attributes (shape, colour, size, place, background), a caption names
all five, and drawing a caption is a function of the caption and a random generator. The world is
procedural so that the model, its scorer and every figure about them can be made again from a seed.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64  # pictures are SIZE x SIZE
OVERSAMPLE = 4

COLOURS = {
    "red": (214, 39, 40),
    "orange": (245, 140, 30),
    "yellow": (246, 222, 50),
    "green": (44, 160, 60),
    "cyan": (70, 205, 225),
    "blue": (35, 75, 205),
    "purple": (125, 50, 165),
    "pink": (250, 150, 195),
}
BACKGROUNDS = {
    "white": (250, 250, 250),
    "gray": (140, 140, 140),
    "black": (15, 15, 15),
    "yellow": COLOURS["yellow"],
    "green": COLOURS["green"],
    "blue": COLOURS["blue"],
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")
RADII = {"large": 15.5, "small": 9.5}
PLACES = {
    "on the left": (-13, 0),
    "on the right": (13, 0),
    "at the top": (0, -13),
    "at the bottom": (0, 13),
    "in the middle": (0, 0),
}


class Scene(NamedTuple):
    shape: str
    colour: str
    size: str
    place: str
    background: str

    def caption(self):
        return f"a {self.size} {self.colour} {self.shape} {self.place} of a {self.background} background"


def all_scenes():
    """Every scene of the world in a fixed order; a shape never has its background's colour."""
    product = itertools.product(SHAPES, COLOURS, RADII, PLACES, BACKGROUNDS)
    return [Scene(*attributes) for attributes in product if attributes[1] != attributes[4]]


def neighbours(scenes):
    """For each scene, the indices of the scenes that differ from it in exactly one attribute."""
    values = np.array([[attribute_index(scene, k) for k in range(5)] for scene in scenes])
    return [np.flatnonzero((values != row).sum(1) == 1) for row in values]


def attribute_index(scene, k):
    return [SHAPES, list(COLOURS), list(RADII), list(PLACES), list(BACKGROUNDS)][k].index(scene[k])


def polygon(shape):
    """Corners of a shape of radius 1 around the origin (y points down)."""
    if shape == "square":
        return [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)]
    if shape == "triangle":
        return [(0, -0.98), (0.98, 0.78), (-0.98, 0.78)]
    if shape == "star":
        radii = itertools.cycle((1.08, 0.45))
        return [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in zip(range(10), radii)]
    if shape == "cross":
        a, b = 0.32, 1.0
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    if shape == "heart":
        angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        x = 16 * np.sin(angles) ** 3
        y = -(13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles))
        return list(zip(x / 16.5, (y - 2.5) / 15))
    if shape == "moon":
        outer = np.linspace(0.25 * math.pi, 1.75 * math.pi, 30)
        edge = math.cos(0.25 * math.pi)
        inner = np.linspace(1.67 * math.pi, 0.33 * math.pi, 30)
        reach = edge / math.sin(0.33 * math.pi)
        centre = edge - reach * math.cos(0.33 * math.pi)
        points = [(math.cos(t), math.sin(t)) for t in outer]
        points += [(centre + reach * math.cos(t), reach * math.sin(t)) for t in inner]
        return [(x + 0.15, y) for x, y in points]
    raise ValueError(shape)


def draw(scene, rng):
    """One picture of the scene as uint8 [SIZE, SIZE, 3], with small jitter in place, size, turn and light."""
    def light(colour):
        return tuple(int(v) for v in np.clip(np.array(colour) + rng.normal(0, 5, 3), 0, 255))

    side = SIZE * OVERSAMPLE
    dx, dy = PLACES[scene.place]
    centre_x = (SIZE / 2 + dx + rng.uniform(-1.5, 1.5)) * OVERSAMPLE
    centre_y = (SIZE / 2 + dy + rng.uniform(-1.5, 1.5)) * OVERSAMPLE
    radius = RADII[scene.size] * rng.uniform(0.94, 1.06) * OVERSAMPLE
    turn = math.radians(rng.uniform(-8, 8))
    background, colour = light(BACKGROUNDS[scene.background]), light(COLOURS[scene.colour])

    image = Image.new("RGB", (side, side), background)
    pen = ImageDraw.Draw(image)

    def disc(r, fill):
        pen.ellipse((centre_x - r, centre_y - r, centre_x + r, centre_y + r), fill=fill)

    if scene.shape in ("circle", "ring"):
        disc(radius, colour)
        if scene.shape == "ring":
            disc(radius * 0.55, background)
    else:
        cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
        pen.polygon([(centre_x + x * cos - y * sin, centre_y + x * sin + y * cos) for x, y in polygon(scene.shape)], fill=colour)
    return np.asarray(image.reduce(OVERSAMPLE))
