"""Procedural captioned video: one moving object over a ground under a sky.

A *scene* is a dict of seven attributes plus eight random numbers.  `render`
draws a batch of scenes at any size, zoom and offset, so the same scene can be
seen whole (160 x 96, "native") or through a window of a larger picture.
World units are native pixels.  `caption` writes the words for a scene.

The combinations in `HELD_OUT` are never rendered for training.
"""
import itertools
import math
import random

import torch

WORLD_W, WORLD_H, CLIP_FRAMES = 160.0, 96.0, 17

COLORS = {
    "red": (.86, .13, .13), "blue": (.13, .30, .88), "green": (.10, .62, .22),
    "yellow": (.97, .86, .12), "purple": (.52, .16, .72), "orange": (.97, .50, .06),
    "white": (.96, .96, .96), "pink": (.97, .48, .70),
}
# second colour of striped and checkered objects; light enough to be seen at night
SECOND_COLORS = {
    "red": (.97, .95, .90), "blue": (.97, .95, .90), "green": (.97, .95, .90),
    "purple": (.97, .95, .90), "orange": (.97, .95, .90), "yellow": (.45, .27, .10),
    "white": (.45, .47, .52), "pink": (.62, .12, .40),
}
SKIES = {  # colour at the top, colour at the horizon
    "blue": ((.20, .45, .90), (.72, .87, .98)),
    "sunset": ((.30, .16, .48), (.99, .60, .28)),
    "night": ((.02, .03, .10), (.12, .14, .32)),
    "grey": ((.50, .53, .58), (.78, .80, .82)),
}
GROUNDS = {"grass": (.22, .50, .14), "sand": (.84, .70, .44),
           "water": (.10, .34, .58), "snow": (.90, .93, .98)}
SHAPES = ("ball", "square", "star", "triangle")
PATTERNS = ("plain", "striped", "checkered")
SIZES = ("small", "big")
MOTIONS = ("moving left", "moving right", "bouncing", "rising", "falling", "spinning")
RADIUS = {"small": 15.0, "big": 22.0}

# ---------------------------------------------------------------- scenes


def _choose_held_out(per_color=20):
    """Balanced over colours; each entry is (color, pattern, shape, motion, ground, sky)."""
    rest = list(itertools.product(PATTERNS, SHAPES, MOTIONS, GROUNDS, SKIES))
    rng = random.Random(20261123)
    return [(color,) + combo for color in COLORS for combo in rng.sample(rest, per_color)]


HELD_OUT = _choose_held_out()
_HELD_OUT_SET = set(HELD_OUT)


def _key(scene):
    return tuple(scene[k] for k in ("color", "pattern", "shape", "motion", "ground", "sky"))


def sample_scenes(count, rng):
    """Random scenes, never one of the held-out combinations."""
    scenes = []
    while len(scenes) < count:
        scene = dict(color=rng.choice(list(COLORS)), pattern=rng.choice(PATTERNS),
                     shape=rng.choice(SHAPES), size=rng.choice(SIZES),
                     motion=rng.choice(MOTIONS), ground=rng.choice(list(GROUNDS)),
                     sky=rng.choice(list(SKIES)), rand=[rng.random() for _ in range(8)])
        if _key(scene) not in _HELD_OUT_SET:
            scenes.append(scene)
    return scenes


def held_out_scenes(seed=0):
    """One scene for each held-out combination (sizes alternate)."""
    rng = random.Random(seed)
    names = ("color", "pattern", "shape", "motion", "ground", "sky")
    return [dict(zip(names, combo), size=SIZES[i % 2], rand=[rng.random() for _ in range(8)])
            for i, combo in enumerate(HELD_OUT)]


# ---------------------------------------------------------------- captions

SIZE_WORDS = {"small": ("little", "tiny"), "big": ("large", "huge", "giant")}
COLOR_WORDS = {"purple": ("violet",), "yellow": ("golden",), "red": ("scarlet",),
               "orange": ("orange",), "pink": ("rosy",)}
PATTERN_WORDS = {"plain": ("solid", "simple"), "striped": ("stripy",),
                 "checkered": ("chequered", "checked", "checkerboard")}
PATTERN_AFTER = {"striped": "with stripes", "checkered": "with checks"}
SHAPE_WORDS = {"ball": ("sphere", "circle", "balloon"), "square": ("box", "block", "cube"),
               "star": ("star",), "triangle": ("pyramid",)}
MOTION_WORDS = {
    "moving left": ("moving to the left", "going left", "flying left", "drifting left",
                    "rolling left", "moves left", "goes to the left", "flies left"),
    "moving right": ("moving to the right", "going right", "flying right", "drifting right",
                     "rolling right", "moves right", "goes to the right", "flies right"),
    "bouncing": ("jumping", "hopping", "bouncing up and down", "bounces", "jumps"),
    "rising": ("moving up", "flying up", "floating up", "going up", "climbing", "rises",
               "flies up"),
    "falling": ("dropping", "moving down", "going down", "sinking", "falls", "drops",
                "falling down"),
    "spinning": ("turning", "rotating", "twirling", "spins", "turns", "spinning around"),
}
GROUND_WORDS = {
    "grass": ("over a meadow", "over a lawn", "over a green field", "on the grass",
              "over the grass", "above the grass", "in a meadow", "in a field"),
    "sand": ("over a desert", "over a beach", "over the sand", "on the beach", "on the sand",
             "in the desert", "above the dunes"),
    "water": ("over the sea", "over a lake", "over the ocean", "over the water",
              "above the water", "on the water", "above the sea"),
    "snow": ("in the snow", "over the snow", "on the snow", "above the snow",
             "over a snowy field", "over ice", "in winter"),
}
SKY_WORDS = {
    "blue": ("under the blue sky", "under a clear sky", "on a sunny day", "by day",
             "in daylight", "under a clear blue sky"),
    "sunset": ("at sunset", "under a sunset", "at dusk", "in the evening",
               "under an evening sky", "at dawn"),
    "night": ("at night", "under the stars", "under a starry sky", "in the dark",
              "under the moon", "under a dark sky", "at midnight"),
    "grey": ("under a gray sky", "under a cloudy sky", "on a cloudy day", "under grey clouds",
             "under an overcast sky", "on a gray day", "on a rainy day"),
}
OPENERS = ("a video of", "an animation of", "a clip of", "a cartoon of", "a picture of")
CLOSERS = ("high quality", "smooth", "in slow motion", "4k", "detailed", "beautiful colors")
NOISE_WORDS = ("very", "really", "nice", "beautiful", "my", "bright", "shiny", "cute", "some",
               "happy", "dog", "tree", "with", "and", "here", "slowly", "quickly")


def caption(scene, rng=None):
    """The canonical caption, or with `rng` a varied one (order, synonyms, gaps, typos)."""
    color, shape, motion = scene["color"], scene["shape"], scene["motion"]
    size, pattern, ground, sky = (scene[k] for k in ("size", "pattern", "ground", "sky"))
    if rng is None:
        middle = "" if pattern == "plain" else pattern + " "
        return f"a {size} {color} {middle}{shape} {motion} over {ground} under a {sky} sky"

    def maybe(probability):
        return rng.random() < probability

    vary = 0.0 if maybe(.45) else .45            # nearly half keep the canonical words

    def synonym(table, key, plain):
        return rng.choice(table[key]) if key in table and maybe(vary) else plain

    short = maybe(.08)                           # "a red ball"
    words = []
    if not short and not maybe(.10):
        words.append(synonym(SIZE_WORDS, size, size))
    if not maybe(.02):
        words.append(synonym(COLOR_WORDS, color, color))
    trailing = ""
    if pattern in PATTERN_AFTER and maybe(vary * .3):
        trailing = " " + PATTERN_AFTER[pattern]
    elif pattern != "plain" or maybe(.25):
        words.append(synonym(PATTERN_WORDS, pattern, pattern))
    if vary and maybe(.12):
        rng.shuffle(words)
    words.append(rng.choice(("thing", "object", "shape")) if maybe(.02)
                 else synonym(SHAPE_WORDS, shape, shape))
    article = rng.choice(("the", "one", "")) if maybe(vary * .4) else "a"
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    thing = (article + " " + " ".join(words)).strip() + trailing
    if vary and maybe(.15):
        thing = rng.choice(OPENERS) + " " + thing

    move = "" if short or maybe(.05) else synonym(MOTION_WORDS, motion, motion)
    if move and vary and maybe(.12):
        move = rng.choice(("slowly ", "gently ", "that is ", "is ")) + move
    below = "" if short or maybe(.08) else synonym(GROUND_WORDS, ground, "over " + ground)
    above = "" if short or maybe(.08) else synonym(SKY_WORDS, sky, f"under a {sky} sky")

    order = rng.random() if vary else 0.0
    if order < .5:
        parts = [thing, move, below, above]
    elif order < .65:
        parts = [above, thing, move, below]
    elif order < .75:
        parts = [thing, move, above, below]
    elif order < .85:
        parts = [below, above, thing, move]
    else:                                        # a list of key words
        parts = [" ".join(words), move, below, above]
        rng.shuffle(parts)
    joint = ", " if vary and maybe(.35) else " "
    text = joint.join(p for p in parts if p)
    if vary and maybe(.08):
        text += ", " + rng.choice(CLOSERS)
    if vary and maybe(.15):
        text += "."
    if maybe(.05):
        text = _insert_noise(text, rng)
    if maybe(.04):
        text = _insert_typo(text, rng)
    return text


def _insert_noise(text, rng):
    """A word the model knows nothing about, anywhere in the sentence."""
    kind = rng.random()
    if kind < .5:
        word = rng.choice(NOISE_WORDS)
    elif kind < .85:
        word = "".join(rng.choice("abcdefghijklmnoprstuvwy") for _ in range(rng.randint(2, 6)))
    else:                                        # other scripts, emoji: byte pieces
        word = "".join(chr(rng.choice((0x4e00, 0x3040, 0x410, 0x1f600)) + rng.randrange(60))
                       for _ in range(rng.randint(1, 2)))
    words = text.split(" ")
    words.insert(rng.randrange(len(words) + 1), word)
    return " ".join(words)


def _insert_typo(text, rng):
    words = text.split(" ")
    i = rng.randrange(len(words))
    word = words[i]
    if len(word) > 3:
        k = rng.randrange(1, len(word) - 1)
        words[i] = rng.choice((word[:k] + word[k + 1:],                          # left out
                               word[:k] + word[k] + word[k:],                    # doubled
                               word[:k] + word[k + 1] + word[k] + word[k + 2:]))  # swapped
    return " ".join(words)


def all_caption_words():
    """Every word the captions can contain (for the tokenizer)."""
    words = set("a an the one is that over under sky thing object shape slowly gently in "
                "on at of to and with".split())
    for table in (SIZE_WORDS, COLOR_WORDS, PATTERN_WORDS, SHAPE_WORDS, MOTION_WORDS,
                  GROUND_WORDS, SKY_WORDS):
        for key, variants in table.items():
            for phrase in (key,) + tuple(variants):
                words.update(phrase.split())
    for phrase in (tuple(COLORS) + tuple(PATTERN_AFTER.values()) + OPENERS + CLOSERS
                   + NOISE_WORDS):
        words.update(phrase.split())
    return sorted(words)


# ---------------------------------------------------------------- pictures


def _hash(x, y, seed):
    value = torch.sin(x * 12.9898 + y * 78.233 + seed * 37.719) * 43758.5453
    return value - torch.floor(value)


def _noise(x, y, seed):
    """Smooth value noise in [0, 1]."""
    x0, y0 = torch.floor(x), torch.floor(y)
    fx, fy = x - x0, y - y0
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    top = _hash(x0, y0, seed) * (1 - fx) + _hash(x0 + 1, y0, seed) * fx
    bottom = _hash(x0, y0 + 1, seed) * (1 - fx) + _hash(x0 + 1, y0 + 1, seed) * fx
    return top * (1 - fy) + bottom * fy


class _Batch:
    """Per-scene values shaped to broadcast over [batch, time, height, width]."""

    def __init__(self, scenes, device):
        self.scenes, self.device = scenes, device
        self.rand_table = torch.tensor([s["rand"] for s in scenes], device=device)

    def color(self, table, key):
        rows = [table[s[key]] for s in self.scenes]
        return torch.tensor(rows, device=self.device).view(-1, 3, 1, 1, 1)

    def number(self, table, key):
        rows = [float(table[s[key]]) for s in self.scenes]
        return torch.tensor(rows, device=self.device).view(-1, 1, 1, 1)

    def flag(self, key, *values):
        rows = [float(s[key] in values) for s in self.scenes]
        return torch.tensor(rows, device=self.device).view(-1, 1, 1, 1)

    def rand(self, i):
        return self.rand_table[:, i].view(-1, 1, 1, 1)


def object_home(scene):
    """World position around which the object moves."""
    return (WORLD_W * (.34 + .32 * scene["rand"][3]), WORLD_H * (.36 + .14 * scene["rand"][4]))


def _mix(image, color, alpha):
    """image [B,3,T,H,W], alpha [B,T,H,W]"""
    return image + (color - image) * alpha[:, None]


def _rgb(device, *values):
    return torch.tensor(values, device=device).view(1, 3, 1, 1, 1)


@torch.no_grad()
def render(scenes, frames=CLIP_FRAMES, height=96, width=160, device="cpu", zoom=None,
           offset=None):
    """Draw scenes: video [B,3,T,H,W] in [0,1] and an object weight map [B,1,T,H,W] in [0,1].

    zoom [B] is output pixels per world unit, offset [B,2] the world (x, y) of the
    upper left corner.  The weight map is 1 in the object, falls to 0 within 3 px
    around it, and marks stars and the moon.
    """
    batch = _Batch(scenes, device)
    rand, flag = batch.rand, batch.flag
    count = len(scenes)
    if zoom is None:
        zoom = torch.full((count,), width / WORLD_W, device=device)
    if offset is None:
        offset = torch.zeros(count, 2, device=device)
    scale = zoom.view(count, 1, 1, 1)
    x = (offset[:, 0].view(count, 1, 1, 1)
         + (torch.arange(width, device=device) + .5).view(1, 1, 1, width) / scale)
    y = (offset[:, 1].view(count, 1, 1, 1)
         + (torch.arange(height, device=device) + .5).view(1, 1, height, 1) / scale)
    t = (torch.arange(frames, device=device) / 16.0).view(1, frames, 1, 1)
    seed = rand(1) * 50
    horizon = WORLD_H * (.58 + .08 * rand(0))
    night, sunset = flag("sky", "night"), flag("sky", "sunset")

    def cover(distance_inside):
        """Antialiased coverage from a signed distance in world units."""
        return (.5 + distance_inside * scale * .8).clamp(0, 1)

    # --- where the object is (sun and moon keep to the other side of the picture)
    home_x = WORLD_W * (.34 + .32 * rand(3))
    light_side = torch.where(rand(3) < .5, .84, .16)
    light_x = WORLD_W * (light_side + .08 * (rand(6) - .5))

    # --- sky
    depth = (y / horizon).clamp(0, 1)
    top = batch.color({k: v[0] for k, v in SKIES.items()}, "sky")
    low = batch.color({k: v[1] for k, v in SKIES.items()}, "sky")
    image = top * (1 - depth)[:, None] + low * depth[:, None]
    drift = t * .35 + seed
    cloud = (_noise(x / 26 + drift, y / 11 + seed, seed) * .65
             + _noise(x / 12 + drift, y / 6, seed) * .35 - .5).clamp(0, .4) * 1.7
    cloud = cloud * (1 - depth * .8) * (1 - night)
    image = _mix(image, 1.0, cloud * (.9 - .35 * sunset))
    glow = torch.exp(-((x - light_x) ** 2 + ((y - horizon) * 1.6) ** 2) / 900.0) * sunset
    sun = cover(10.0 - torch.sqrt((x - light_x) ** 2 + (y - horizon + 4) ** 2 + 1e-3)) * sunset
    image = _mix(image, _rgb(device, 1.0, .92, .55), (glow * .45 + sun * .8).clamp(0, 1))

    cell = 16.0                                     # one star at most in each cell
    cell_x, cell_y = torch.floor(x / cell), torch.floor(y / cell)
    star_x = (cell_x + .2 + .6 * _hash(cell_x, cell_y, seed + 1)) * cell
    star_y = (cell_y + .2 + .6 * _hash(cell_x, cell_y, seed + 2)) * cell
    brightness = (_hash(cell_x, cell_y, seed + 3) - .45).clamp(0, 1) * 1.9
    stars = torch.exp(-((x - star_x) ** 2 + (y - star_y) ** 2) / 1.9) * brightness
    stars = stars * night * (1 - depth * .7)
    moon_y = WORLD_H * (.14 + .08 * rand(7))
    moon_distance = torch.sqrt((x - light_x) ** 2 + (y - moon_y) ** 2 + 1e-3)
    moon = cover(7.0 - moon_distance) * night
    stars = stars * (1 - moon) + moon * (.92 - .2 * _noise(x / 5, y / 5, seed + 5))
    stars = stars + torch.exp(-moon_distance / 7) * .12 * night
    image = image + stars[:, None]

    # --- ground: log perspective keeps the smallest texture above 2.5 px at the horizon
    ahead = (y - horizon).clamp_min(0) + 20.0
    u = (x - WORLD_W / 2) * (58.0 / ahead)
    v = torch.log(ahead / 58.0) * 58.0
    near = ((y - horizon) / (WORLD_H - horizon)).clamp(0, 1)
    patches = _noise(u / 34 + seed, v / 17 + seed, seed + 3) - .5
    grass = (_noise(u / 5.5 + seed, v / 9 + seed, seed + 4) - .5) * .30 + patches * .22
    sand = (torch.sin(v / 1.5 + 4 * patches + 2 * _noise(u / 20 + seed, v / 12, seed + 6)) * .055
            + patches * .14)
    water = ((_noise(u / 15 + seed + t * .5, v / 5 - t * .7 + seed, seed + 7) - .5) * .24
             + (_noise(u / 9 - t * .6 + seed, v / 4 + t * .5, seed + 8) - .62).clamp(0, 1) * .7)
    snow = (_noise(u / 26 + seed, v / 9 + seed, seed + 9) - .5) * .16
    texture = (flag("ground", "grass") * grass + flag("ground", "sand") * sand
               + flag("ground", "water") * water + flag("ground", "snow") * snow)
    texture = texture * (.35 + .65 * near)
    ground = (batch.color(GROUNDS, "ground") * (.80 + .25 * near)[:, None]
              + texture[:, None] * _rgb(device, 1.0, 1.0, .85))
    ground = ground + glow[:, None] * _rgb(device, .30, .16, .02)
    ground = ground * (1 - .45 * night)[:, None] + night[:, None] * _rgb(device, 0.0, .01, .05)
    is_ground = cover(y - horizon)
    image = _mix(image, ground, is_ground)

    # --- object: position, size, rotation
    radius = batch.number(RADIUS, "size") * (.94 + .12 * rand(2))
    travel = 34 + 10 * rand(5)
    direction = flag("motion", "moving right") - flag("motion", "moving left")
    climb = flag("motion", "falling") - flag("motion", "rising")
    center_x = home_x + travel * (t - .5) * direction
    center_y = WORLD_H * (.36 + .14 * rand(4)) + travel * .72 * (t - .5) * climb
    floor = horizon + WORLD_H * .16 - radius
    hop = floor - 28 * torch.abs(torch.sin(math.pi * (t * 1.25 + rand(5))))
    bouncing = flag("motion", "bouncing")
    center_y = center_y * (1 - bouncing) + hop * bouncing
    ball = flag("shape", "ball")
    angle = (flag("motion", "spinning") * t * 1.6                     # slow: latents hold 4 frames
             + direction * ball * (t - .5) * travel / radius * .7     # balls roll
             + (rand(7) - .5) * (.2 + .5 * ball))                     # polygons start upright

    # --- shadow on the ground
    shadow_y = horizon + WORLD_H * .18
    lift = ((shadow_y - center_y) / 60).clamp(0, 1)
    shadow = torch.exp(-(((x - center_x) / (radius * .9)) ** 2
                         + ((y - shadow_y) / (radius * .28)) ** 2) * 1.2)
    image = image * (1 - shadow * (.5 - .25 * lift) * is_ground)[:, None]

    # --- object: outline as a signed distance, in units of its radius
    dx, dy = (x - center_x) / radius, (y - center_y) / radius
    cos, sin = torch.cos(angle), torch.sin(angle)
    a, b = dx * cos + dy * sin, -dx * sin + dy * cos
    polar = torch.sqrt(a * a + b * b + 1e-6)
    sector = 2 * math.pi / 5
    folded = torch.abs(torch.remainder(torch.atan2(a, -b) + sector / 2, sector) - sector / 2)
    tip, notch = 1.10, .52                          # star: radius of points and of notches
    notch_x, notch_y = notch * math.cos(sector / 2), notch * math.sin(sector / 2)
    normal_x, normal_y = notch_y, tip - notch_x
    star = ((polar * torch.cos(folded) - tip) * normal_x
            + polar * torch.sin(folded) * normal_y) / math.hypot(normal_x, normal_y)
    low_b = b - .12                                 # triangles sit a little lower
    triangle = torch.maximum(torch.maximum(a * .866 - low_b * .5, -a * .866 - low_b * .5),
                             low_b) - .60
    square = torch.maximum(a.abs(), b.abs()) - .80
    outside = (ball * (polar - .95) + flag("shape", "square") * square
               + flag("shape", "star") * star + flag("shape", "triangle") * triangle)
    inside = -outside * radius                      # world units
    alpha = cover(inside)

    # --- object: pattern (8 to 12 px wide so that the 8x VAE can hold it)
    def edge(wave, period, gain):
        return (wave * radius * scale * period * .5 * gain + .5).clamp(0, 1)

    third, half = .5333, .80                         # of a square's side
    band = torch.cos(math.pi * a / third) * (1 - 2 * flag("shape", "star"))
    stripe = edge(band, third, .6)                   # a star's middle keeps the main colour
    odd = torch.cos(math.pi * a / third) * torch.cos(math.pi * b / third)
    even = torch.sin(math.pi * a / half) * torch.sin(math.pi * b / half)
    small = flag("size", "small")                    # 2 x 2 on a small square, 3 x 3 on a big one
    check = edge(even, half, .8) * small + edge(-odd, third, .8) * (1 - small)
    pattern = flag("pattern", "striped") * stripe + flag("pattern", "checkered") * check
    paint = _mix(batch.color(COLORS, "color"), batch.color(SECOND_COLORS, "color"), pattern)

    # --- object: light
    facing = torch.sqrt((1 - (dx * dx + dy * dy)).clamp(.02, 1))
    lambert = (-.45 * dx - .55 * dy + .70 * facing).clamp(0, 1)
    shade = ball * (.55 + .57 * lambert) + (1 - ball) * (1.02 - .10 * (dx + dy * 1.3))
    rim = 1 - .38 * (1 - (inside / 1.8).clamp(0, 1))
    shine = ball * torch.exp(-((dx + .36) ** 2 + (dy + .42) ** 2) * 16) * .5
    paint = _mix(paint * (shade * rim * (1 - .08 * night))[:, None], 1.0, shine)
    image = _mix(image, paint.clamp(0, 1), alpha)

    halo = (1 + (inside + 3) / 3).clamp(0, 1)
    sparkle = (stars * 2).clamp(0, 1) * (1 - is_ground)
    return image.clamp(0, 1), torch.maximum(halo, sparkle)[:, None]


def windows(scenes, rng, height, width, zoom_low, zoom_high, zoom_probability, aim_probability):
    """Random (zoom, offset) windows inside the world, most of them aimed at the object."""
    zooms, offsets = [], []
    for scene in scenes:
        zoom = 1.0
        if rng.random() < zoom_probability:
            zoom = math.exp(rng.uniform(math.log(zoom_low), math.log(zoom_high)))
        window_w, window_h = width / zoom, height / zoom
        if rng.random() < aim_probability:
            home_x, home_y = object_home(scene)
            center_x = home_x + rng.uniform(-.5, .5) * min(window_w, 56)
            center_y = home_y + rng.uniform(-.5, .6) * min(window_h, 40)
        else:
            center_x, center_y = rng.uniform(0, WORLD_W), rng.uniform(0, WORLD_H)
        offsets.append((min(max(center_x - window_w / 2, 0), max(WORLD_W - window_w, 0)),
                        min(max(center_y - window_h / 2, 0), max(WORLD_H - window_h, 0))))
        zooms.append(zoom)
    return torch.tensor(zooms), torch.tensor(offsets)


def save_sheet(videos, path, frames=(0, 4, 8, 12, 16), columns=1):
    """Contact sheet: each video [3,T,H,W] in [0,1] is a row of frames; several columns of rows."""
    from PIL import Image
    rows = [torch.cat([v[:, i] for i in frames], 2) for v in videos]
    while len(rows) % columns:
        rows.append(torch.ones_like(rows[0]))
    per_column = len(rows) // columns
    sheet = torch.cat([torch.cat(rows[c * per_column:(c + 1) * per_column], 1)
                       for c in range(columns)], 2)
    pixels = (sheet.float().clamp(0, 1) * 255 + .5).byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels).save(path, **({"quality": 88} if path.endswith(".jpg") else {}))


if __name__ == "__main__":
    import sys
    listing = sys.argv[1] if len(sys.argv) > 1 else "prompts_heldout.txt"
    with open(listing, "w") as out:
        for scene in held_out_scenes():
            out.write(caption(scene) + "\n")
