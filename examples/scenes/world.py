"""The world of nano-sd and nano-sdxl: two or three objects that stand in a relation on a patterned background.

A scene is a list of objects (size, texture, colour, shape), a relation and a background (pattern, colour). Its
caption names everything that its picture shows, and drawing is a function of the scene and a random generator, so
that the models, their judges and every figure about them can be made again from a seed.
"""

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
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
TEXTURES = ("plain", "striped")  # an object's stripes alternate with a shade of half the brightness
RADII = {"large": 12.5, "small": 8.5}
LOOKS = {"size": tuple(RADII), "texture": TEXTURES, "colour": tuple(COLOURS), "shape": SHAPES}
PATTERNS = ("plain", "striped", "checked")  # a background's cells alternate with a lighter (white: darker) shade
CELL = 8  # pixels, the width of a background's stripe and the side of its squares
STRIPE = 4.0  # pixels, the width of an object's stripe

# The first object's place for each relation; with three objects the second and third share the other side.
RELATIONS = ("above", "below", "left of", "right of")
NEAR, FAR, MIDDLE = 16.5, 47.5, 32.0
PLACES = {
    ("above", 2): ((MIDDLE, NEAR), (MIDDLE, FAR)),
    ("below", 2): ((MIDDLE, FAR), (MIDDLE, NEAR)),
    ("left of", 2): ((NEAR, MIDDLE), (FAR, MIDDLE)),
    ("right of", 2): ((FAR, MIDDLE), (NEAR, MIDDLE)),
    ("above", 3): ((MIDDLE, NEAR), (NEAR, FAR), (FAR, FAR)),
    ("below", 3): ((MIDDLE, FAR), (NEAR, NEAR), (FAR, NEAR)),
    ("left of", 3): ((NEAR, MIDDLE), (FAR, NEAR), (FAR, FAR)),
    ("right of", 3): ((FAR, MIDDLE), (NEAR, NEAR), (NEAR, FAR)),
}
JITTER = 1.5  # pixels, in each direction
DRIFT = 5.0  # pixels, across the line on which two objects stand

# Colour and shape pairs that no training caption holds: held-out combinations.
HELD_OUT_PAIRS = (("red", "star"), ("blue", "ring"), ("green", "triangle"), ("yellow", "cross"))


class Thing(NamedTuple):
    size: str
    texture: str
    colour: str
    shape: str

    def words(self):
        texture = "" if self.texture == "plain" else f"{self.texture} "
        return f"a {self.size} {texture}{self.colour} {self.shape}"


class Scene(NamedTuple):
    things: tuple
    relation: str
    pattern: str
    background: str

    def caption(self):
        first, *others = [thing.words() for thing in self.things]
        pattern = "" if self.pattern == "plain" else f"{self.pattern} "
        return f"{first} {self.relation} {' and '.join(others)} on a {pattern}{self.background} background"

    def labels(self):
        """The number of each value: the looks of three objects (-1 for one that is absent), relation, pattern, background."""
        looks = [choices.index(value) for thing in self.things for choices, value in zip(LOOKS.values(), thing)]
        absent = [-1] * (len(LOOKS) * (3 - len(self.things)))
        ground = PATTERNS.index(self.pattern), tuple(BACKGROUNDS).index(self.background)
        return [*looks, *absent, RELATIONS.index(self.relation), *ground]

    def holds_held_out_pair(self):
        return any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in self.things)


def count_scenes(things):
    """How many scenes have this many objects: no object has its background's colour."""
    looks = len(RADII) * len(TEXTURES) * len(SHAPES)
    colours = [len(COLOURS) - (background in COLOURS) for background in BACKGROUNDS]
    return len(RELATIONS) * len(PATTERNS) * sum((looks * n) ** things for n in colours)


def random_scene(rng, three=0.0):
    """A scene with three objects by the chance `three` and otherwise with two, uniform over all of that kind."""
    count = 3 if rng.random() < three else 2
    while True:
        pick = lambda values: values[rng.integers(len(values))]
        background = pick(tuple(BACKGROUNDS))
        things = tuple(
            Thing(pick(tuple(RADII)), pick(TEXTURES), pick(tuple(COLOURS)), pick(SHAPES)) for _ in range(count)
        )
        if all(thing.colour != background for thing in things):
            return Scene(things, pick(RELATIONS), pick(PATTERNS), background)


def polygon(shape):
    """Corners of a shape of radius 1 around the origin (y points down)."""
    if shape == "square":
        return [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)]
    if shape == "triangle":
        return [(0, -0.98), (0.98, 0.78), (-0.98, 0.78)]
    if shape == "star":
        radii = (1.08, 0.45) * 5
        return [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]
    if shape == "cross":
        a, b = 0.34, 1.0
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    raise ValueError(shape)


def silhouette(shape, radius, turn, centre, side):
    """The share of each pixel that the shape covers, as an array [side, side] from 0 to 1."""
    radius, x, y = radius * OVERSAMPLE, centre[0] * OVERSAMPLE, centre[1] * OVERSAMPLE
    image = Image.new("L", (side * OVERSAMPLE, side * OVERSAMPLE), 0)
    pen = ImageDraw.Draw(image)
    if shape in ("circle", "ring"):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        if shape == "ring":
            hole = radius * 0.52
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    else:
        cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
        pen.polygon([(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in polygon(shape)], fill=255)
    return np.asarray(image.reduce(OVERSAMPLE), np.float32) / 255


def dark_shade(colour):
    """The second colour of a striped object."""
    return 0.5 * np.asarray(colour, float)


def other_shade(name):
    """The second colour of a patterned background."""
    colour = np.asarray(BACKGROUNDS[name], float)
    return colour * 0.82 if name == "white" else colour + 0.25 * (255 - colour)


def ground(pattern, background):
    """The background without objects, as an array [SIZE, SIZE, 3]."""
    row, column = np.mgrid[0:SIZE, 0:SIZE] // CELL
    odd = {"plain": column < 0, "striped": column % 2 == 1, "checked": (column + row) % 2 == 1}[pattern]
    return np.where(odd[..., None], other_shade(background), np.asarray(BACKGROUNDS[background], float))


def draw(scene, rng):
    """One picture of the scene as uint8 [SIZE, SIZE, 3], with small changes of place, size, turn and light."""
    image = ground(scene.pattern, scene.background) + rng.normal(0, 3, 3)
    upright = scene.relation in ("above", "below")
    for thing, (x, y) in zip(scene.things, PLACES[scene.relation, len(scene.things)]):
        x, y = x + rng.uniform(-JITTER, JITTER), y + rng.uniform(-JITTER, JITTER)
        if len(scene.things) == 2:
            drift = rng.uniform(-DRIFT, DRIFT)
            x, y = (x + drift, y) if upright else (x, y + drift)
        radius = RADII[thing.size] * rng.uniform(0.96, 1.04)
        put(image, thing, radius, math.radians(rng.uniform(-8, 8)), (x, y), rng.normal(0, 3, 3))
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def put(image, thing, radius, turn, centre, light):
    """Draws one object onto the image, within a window of 32 pixels around it."""
    left, top = (min(max(int(value) - 16, 0), SIZE - 32) for value in centre)
    x, y = centre[0] - left, centre[1] - top
    colour = np.asarray(COLOURS[thing.colour], float) + light
    fill = np.broadcast_to(colour, (32, 32, 3))
    if thing.texture == "striped":
        side = 32 * OVERSAMPLE
        down, across = (np.mgrid[0:side, 0:side] + 0.5) / OVERSAMPLE
        height = (down - y) * math.cos(turn) - (across - x) * math.sin(turn)  # along the object's own axis
        dark = np.floor(height / STRIPE).astype(int) % 2
        share = dark.reshape(32, OVERSAMPLE, 32, OVERSAMPLE).mean((1, 3))[..., None]
        fill = colour + share * (dark_shade(colour) - colour)
    covered = silhouette(thing.shape, radius, turn, (x, y), 32)[..., None]
    window = image[top : top + 32, left : left + 32]
    window += covered * (fill - window)


def vocabulary():
    """Captions that hold every word of the world, for the tokenizer."""
    thing = [Thing(size, texture, colour, shape) for size in RADII for texture in TEXTURES for colour in COLOURS for shape in SHAPES]
    scenes = [Scene((thing[0],) * 3, relation, pattern, background) for relation in RELATIONS for pattern in PATTERNS for background in BACKGROUNDS]
    return [thing.words() for thing in thing] + [scene.caption() for scene in scenes]


def variants(scene, rng):
    """One scene that differs in one respect, for each respect in which a caption can be wrong; name and scene.

    A picture that shows the scene shows none of them. `swap` exchanges the looks of two objects.
    """
    found = {}
    other = lambda choices, *taken: (rest := [value for value in choices if value not in taken])[rng.integers(len(rest))]
    which = rng.integers(len(scene.things))
    for field, choices in LOOKS.items():
        taken = [getattr(scene.things[which], field)] + [scene.background] * (field == "colour")
        changed = scene.things[which]._replace(**{field: other(choices, *taken)})
        found[field] = scene._replace(things=(*scene.things[:which], changed, *scene.things[which + 1 :]))
    found["relation"] = scene._replace(relation=other(RELATIONS, scene.relation))
    found["pattern"] = scene._replace(pattern=other(PATTERNS, scene.pattern))
    found["background"] = scene._replace(background=other(BACKGROUNDS, scene.background, *(thing.colour for thing in scene.things)))
    first, second, *rest = scene.things
    found["swap"] = scene._replace(things=(second, first, *rest))
    mirrored = found["relation"].things == (second, first) and len(scene.things) == 2  # two equal objects
    return {name: variant for name, variant in found.items() if variant != scene and not (name == "relation" and mirrored)}
