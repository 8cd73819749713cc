"""How many objects of the asked colour does each clip show?

    python count_objects.py PROMPTS.txt FOLDER...

FOLDER holds one clip a prompt (folders of PNG frames or videos), named so that their
order is the prompts'.  Prompts ask for one object, so the right answer is one.

Method, per frame, at 320 x 192 (larger frames are averaged down, smaller ones repeated):
the pixels that check_prompts.py gives the asked colour; parts with less than 20 px between
them are one group (a stripe or square of a pattern is some 8 px wide at the native size,
16 here, and its edges are mixed colours); a group counts as an object from 160 pixels
(a native 40).  Groups of more than 160 px extent, half the width, count as a smear
instead.  Nine frames from the middle of the clip are looked at.  A clip's count is the median over frames; it is "one" only if
no smear is in more than half of its frames.

Limits: an object that loses its colour is counted as none; a copy that touches its
original, or in another colour, is not seen; white objects over snow are hard to see.
"""
import json
import os
import statistics
import sys

import numpy as np

from blobs import components, dilate
from check_prompts import asked_color, color_classes, load_clip

WIDTH, HEIGHT = 320, 192
MIN_PIXELS, MAX_EXTENT, JOIN_RADIUS = 160, 160, 10


def to_counting_size(frame):
    height, width = frame.shape[:2]
    if (height, width) == (HEIGHT, WIDTH):
        return frame
    from PIL import Image
    pixels = Image.fromarray((frame.clip(0, 1) * 255 + .5).astype(np.uint8))
    method = Image.BOX if width > WIDTH else Image.NEAREST
    return np.asarray(pixels.resize((WIDTH, HEIGHT), method), np.float32) / 255


def groups(mask):
    """[(pixels, extent)] of the parts of mask that lie within 2 JOIN_RADIUS of each other"""
    # On every second pixel of the dilated mask: a quarter of the work.
    out = []
    counts = mask.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).sum((1, 3))
    for rows, columns in components(dilate(mask, JOIN_RADIUS)[::2, ::2]):
        own = counts[rows, columns] > 0
        extent = 2 * (max(np.ptp(rows[own]), np.ptp(columns[own])) + 1) if own.any() else 0
        out.append((int(counts[rows, columns].sum()), int(extent)))
    return out


def count_clip(frames, color, least=MIN_PIXELS):
    """(median number of objects, True if more than half of the frames have a smear)"""
    count = len(frames)
    middle = np.unique(np.linspace(count * .15, count * .85, 9).astype(int).clip(0, count - 1))
    objects, smears = [], 0
    for i in middle:
        found = [g for g in groups(color_classes(to_counting_size(frames[i]))[color])
                 if g[0] >= least]
        smears += any(extent > MAX_EXTENT for _, extent in found)
        objects.append(sum(extent <= MAX_EXTENT for _, extent in found))
    return int(statistics.median(objects)), bool(smears > len(middle) / 2)


def main():
    from concurrent.futures import ProcessPoolExecutor
    with open(sys.argv[1]) as text:
        colors = [asked_color(line) for line in text if line.strip()]
    for folder in sys.argv[2:]:
        names = sorted(n for n in os.listdir(folder)
                       if os.path.isdir(os.path.join(folder, n)) or n.endswith(".mp4"))
        if len(names) != len(colors):
            sys.exit(f"{folder}: {len(names)} clips for {len(colors)} prompts")
        with ProcessPoolExecutor() as pool:
            results = list(pool.map(count_path, [os.path.join(folder, n) for n in names], colors))
        counts = [c for c, _ in results]
        print(json.dumps({
            "folder": os.path.basename(os.path.normpath(folder)), "clips": len(results),
            "one": sum(c == 1 and not s for c, s in results), "none": counts.count(0),
            "more": sum(c > 1 for c in counts), "smear": sum(s for _, s in results),
            "mean": round(statistics.mean(counts), 2), "counts": counts}), flush=True)


def count_path(path, color):
    return count_clip(load_clip(path), color)


if __name__ == "__main__":
    main()
