"""Does each clip show an object of the colour its prompt asks for?

    python check_prompts.py PROMPTS.txt CLIP [CLIP ...]

One prompt a line, one clip a prompt, in the same order.  A clip is a folder of PNG
frames, a .npy of frames [T,H,W,3] (uint8, or floats in 0..1), or a video that the
ffmpeg command can read.  Larger frames are first averaged down to 160 x 96.

Method, per frame: a pixel has one of eight colour classes by hue, saturation and
value, and counts only where it differs from its row's median colour (sky and ground
change mostly from row to row).  Pixels of a class within 3 px of each other form a
blob; blobs wider than 80 px or with few pixels are dropped, as are white
blobs as small as the moon.  The frame's colour is
the class of the largest blob; white counts only if no other class has one, because
patterns are partly white.  A clip passes if at least 40 % of the frames looked at
(nine, from the middle of the clip) have a colour and more than half of these have the
colour asked for.

As a second number, clips whose prompt says left, right, rising or falling are checked
for the direction in which the blob moves.
"""
import json
import os
import re
import subprocess
import sys

import numpy as np

from blobs import components, dilate

WIDTH, HEIGHT = 160, 96
COLOR_NAMES = ("red", "blue", "green", "yellow", "purple", "orange", "white", "pink")
SYNONYMS = {"violet": "purple", "golden": "yellow", "scarlet": "red", "rosy": "pink"}
MIN_PIXELS, MAX_EXTENT = 80, 80
MIN_WHITE_EXTENT = 23                  # the moon is white too, and 20 wide with its margin
MIN_DIFFERENCE = .12
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "rising": (0, -1), "falling": (0, 1)}


def asked_color(prompt):
    text = re.sub(r"\b(blue|grey|gray|orange)\s+(sky|clouds)", " ", prompt.lower())
    for word in re.findall(r"[a-z]+", text):
        word = SYNONYMS.get(word, word)
        if word in COLOR_NAMES:
            return word
    return None


def asked_direction(prompt):
    return next((d for w in re.findall(r"[a-z]+", prompt.lower())
                 for d in DIRECTIONS if w == d), None)


def frames_from_tensor(video):
    """torch [3,T,H,W] in [0,1] -> numpy [T,H,W,3]"""
    return video.permute(1, 2, 3, 0).cpu().numpy()


def load_clip(path):
    """-> float frames [T,H,W,3] in [0,1]"""
    from PIL import Image
    if os.path.isdir(path):
        names = sorted(n for n in os.listdir(path) if n.lower().endswith(".png"))
        frames = np.stack([np.asarray(Image.open(os.path.join(path, n)).convert("RGB"))
                           for n in names])
    elif path.endswith(".npy"):
        frames = np.load(path)
    else:
        probe = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0",
                                "-show_entries", "stream=width,height", "-of", "csv=p=0", path],
                               check=True, capture_output=True, text=True).stdout
        width, height = (int(n) for n in probe.strip().strip(",").split(",")[:2])
        raw = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo",
                              "-pix_fmt", "rgb24", "-"], check=True, capture_output=True).stdout
        frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    return frames.astype(np.float32) / 255 if frames.dtype == np.uint8 else frames


def to_checking_size(frame):
    height, width = frame.shape[:2]
    if (height, width) == (HEIGHT, WIDTH):
        return frame
    from PIL import Image
    pixels = Image.fromarray((frame.clip(0, 1) * 255 + .5).astype(np.uint8))
    return np.asarray(pixels.resize((WIDTH, HEIGHT), Image.BOX), np.float32) / 255


def color_classes(frame):
    """{colour: boolean mask} of the pixels that stand out from their row"""
    red, green, blue = frame[..., 0], frame[..., 1], frame[..., 2]
    value = frame.max(-1)
    chroma = value - frame.min(-1)
    safe = np.maximum(chroma, 1e-6)
    hue = np.where(value == red, (green - blue) / safe % 6,
                   np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4)) * 60
    saturation = chroma / np.maximum(value, 1e-6)
    background = np.median(frame, axis=1, keepdims=True)
    stands_out = np.abs(frame - background).max(-1) > MIN_DIFFERENCE

    def hues(low, high):
        return (hue >= low) & (hue < high)

    return {name: mask & stands_out for name, mask in {
        "red": (hues(0, 14) | hues(346, 360)) & (saturation > .6) & (value > .35),
        "orange": hues(16, 41) & (saturation > .76) & (value > .52),
        "yellow": hues(43, 66) & (saturation > .62) & (value > .45),
        "green": hues(118, 166) & (saturation > .5) & (value > .2),
        "blue": hues(221, 250) & (saturation > .6) & (value > .36),
        "purple": hues(262, 300) & (saturation > .5) & (value > .30),
        "pink": hues(312, 346) & (saturation > .35) & ((value > .6) | (saturation > .6))
        & (value > .35),
        "white": (saturation < .16) & (value > .86),
    }.items()}


def largest_blob(mask, least_extent):
    """(pixels, center x, center y) of the largest acceptable group of mask pixels, or None"""
    if mask.sum() < MIN_PIXELS:
        return None
    best = None
    for rows, columns in components(dilate(mask)):
        own = mask[rows, columns]
        pixels = int(own.sum())
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        plausible = pixels >= MIN_PIXELS and least_extent <= extent <= MAX_EXTENT
        if plausible and (best is None or pixels > best[0]):
            best = (pixels, float(columns[own].mean()), float(rows[own].mean()))
    return best


def frame_color(frame):
    """(colour or None, blob)"""
    found = {}
    for name, mask in color_classes(to_checking_size(frame)).items():
        blob = largest_blob(mask, MIN_WHITE_EXTENT if name == "white" else 8)
        if blob:
            found[name] = blob
    white = found.pop("white", None)
    if found:
        name = max(found, key=lambda key: found[key][0])
        return name, found[name]
    return ("white", white) if white else (None, None)


def clip_colors(frames):
    """The colours of nine frames from the middle of the clip, and all blobs by frame."""
    count = len(frames)
    middle = np.unique(np.linspace(count * .15, count * .85, 9).astype(int).clip(0, count - 1))
    return [frame_color(frames[i]) for i in middle]


def color_passes(colors, color):
    seen = [name for name, _ in colors if name]
    return len(seen) >= .4 * len(colors) and seen.count(color) > len(seen) / 2


def direction_passes(colors, color, direction):
    """Enough movement the asked way (None: the object was not found twice)."""
    places = [blob[1:] for name, blob in colors if name == color]
    if len(places) < 2:
        return None
    moved = np.array(places[-1]) - np.array(places[0])
    wanted = np.array(DIRECTIONS[direction])
    along = float(moved @ wanted)
    return along > 4 and along > abs(float(moved @ wanted[::-1]))


def summary(clips, prompts):
    """Rates over clips; shuffled_rate is how many pass with a prompt of another color."""
    found = [clip_colors(frames) for frames in clips]
    asked = [asked_color(p) for p in prompts]
    usable = [i for i, color in enumerate(asked) if color]
    passed = [color_passes(found[i], asked[i]) for i in usable]
    shift = max(1, len(usable) * 37 // 160)
    others = [(i, asked[usable[(k + shift) % len(usable)]]) for k, i in enumerate(usable)]
    shuffled = [color_passes(found[i], color) for i, color in others if color != asked[i]]
    directions = [direction_passes(found[i], asked[i], asked_direction(prompts[i]))
                  for i in usable if asked_direction(prompts[i])]
    directions = [d for d in directions if d is not None]
    return dict(clips=len(usable), color_rate=sum(passed) / max(1, len(usable)),
                shuffled_rate=sum(shuffled) / max(1, len(shuffled)),
                directions_checked=len(directions),
                direction_rate=sum(map(bool, directions)) / max(1, len(directions)),
                failed=[prompts[i] for i, ok in zip(usable, passed) if not ok])


def main():
    with open(sys.argv[1]) as text:
        prompts = [line.strip() for line in text if line.strip()]
    paths = sys.argv[2:]
    if len(paths) > len(prompts):
        sys.exit(f"{len(paths)} clips but only {len(prompts)} prompts")
    result = summary([load_clip(path) for path in paths], prompts[:len(paths)])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
