"""A clip that looks as if it were filmed, for trying `kinora refine` on something the model was not trained on.

    python footage.py OUT.mp4 [--size 240x144] [--frames 17] [--fps 25] [--crf 22]

Drawn at twice the size and averaged down: an uneven wall in evening light, a shelf, a lettered sign, an orange that rolls
along the shelf, its shadow, a lamp out of focus.  On top of it what a small camera adds: a shaking
hand, blur from motion (four moments a frame), vignette, exposure that drifts, sensor noise that grows
with light (Poisson and read noise), 4:2:0 and x264.  The same bytes each time, given one x264.
Needs numpy, Pillow and the ffmpeg command.
"""
import argparse
import subprocess

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SUB = 4     # moments of the shutter
OVER = 2    # drawing size over output size
MARGIN = 24  # px of scene around the picture, for the shake


def wall(width, height, rng):
    y, x = np.mgrid[0:height, 0:width]
    light = np.exp(-((x - .72 * width) ** 2 + (y - .25 * height) ** 2) / (.42 * width) ** 2)
    base = np.array([112., 92., 78.]) + light[..., None] * np.array([96., 70., 34.])
    rough = Image.fromarray(rng.normal(128, 40, (height // 4, width // 4)).clip(0, 255).astype(np.uint8))
    plaster = np.asarray(rough.resize((width, height), Image.BICUBIC).filter(ImageFilter.GaussianBlur(1.5)), np.float32)
    return (base + (plaster[..., None] - 128) * .35).clip(0, 255).astype(np.uint8)


def scenery(width, height, rng):
    picture = Image.fromarray(wall(width, height, rng))
    lamp = Image.new("L", picture.size)
    ImageDraw.Draw(lamp).ellipse([.78 * width, .08 * height, .90 * width, .28 * height], fill=255)
    lamp = lamp.filter(ImageFilter.GaussianBlur(9))
    picture = Image.composite(Image.new("RGB", picture.size, (255, 232, 180)), picture, lamp)
    draw = ImageDraw.Draw(picture)
    draw.rectangle([.16 * width, .24 * height, .50 * width, .48 * height], fill=(36, 58, 92), outline=(220, 214, 200), width=4)
    draw.text((.19 * width, .265 * height), "OPEN", fill=(236, 230, 214), font=ImageFont.load_default(.08 * width))
    for line in range(2):
        draw.text((.19 * width, (.39 + .042 * line) * height), ("weekdays 9 - 17", "ring twice")[line], fill=(200, 206, 214),
                  font=ImageFont.load_default(.026 * width))
    draw.rectangle([0, .80 * height, width, .86 * height], fill=(96, 62, 38))
    draw.line([0, .80 * height, width, .80 * height], fill=(150, 104, 66), width=3)
    draw.rectangle([0, .86 * height, width, height], fill=(52, 40, 34))
    return picture


def with_orange(picture, at):
    """at: 0 to 1 along the shelf"""
    width, height = picture.size
    r, cx = .075 * width, (.12 + .70 * at) * width
    cy = .80 * height - r
    shadow = Image.new("L", picture.size)
    ImageDraw.Draw(shadow).ellipse([cx - 1.5 * r, .79 * height, cx + .9 * r, .825 * height], fill=170)
    picture = Image.composite(Image.new("RGB", picture.size, (30, 20, 14)), picture, shadow.filter(ImageFilter.GaussianBlur(5)))
    y, x = np.mgrid[0:height, 0:width]
    d = np.hypot(x - cx, y - cy) / r
    dark = (1.12 - .6 * np.hypot(x - cx - .35 * r, y - cy + .4 * r) / r).clip(.25, 1.1)
    shine = np.exp(-((x - cx - .38 * r) ** 2 + (y - cy + .42 * r) ** 2) / (.14 * r) ** 2)
    angle = at * .70 * width / r  # it rolls: a stem turns with it
    stem = np.hypot(x - cx - .6 * r * np.sin(angle), y - cy + .6 * r * np.cos(angle)) < .1 * r
    color = np.array([232., 128., 26.]) * dark[..., None] + 150 * shine[..., None]
    color[stem] = (70, 84, 30)
    mask = ((1 - d) * r + .5).clip(0, 1)[..., None]
    return Image.fromarray((np.asarray(picture) * (1 - mask) + color * mask).clip(0, 255).astype(np.uint8))


def film(size, frames, seed=5):
    rng = np.random.default_rng(seed)
    width, height = size
    scene = scenery((width + 2 * MARGIN) * OVER, (height + 2 * MARGIN) * OVER, rng)
    steps = np.arange(frames * SUB) / SUB
    hand = [sum(a * np.sin(2 * np.pi * steps / p + s) for a, p, s in zip(rng.uniform(.6, 3.2, 4), (7, 13, 23, 41), rng.uniform(0, 6, 4)))
            for _ in range(2)]
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
    vignette = 1 - .28 * (x * x + y * y)
    for t in range(frames):
        light = np.zeros((height, width, 3))
        for s in range(SUB):
            i = t * SUB + s
            moved = with_orange(scene, i / (frames * SUB - 1))
            left, top = (round(OVER * (MARGIN + h[i])) for h in hand)
            part = moved.crop((left, top, left + width * OVER, top + height * OVER)).resize(size, Image.BOX)
            light += (np.asarray(part, np.float64) / 255) ** 2.2 / SUB
        light *= vignette[..., None] * (1 + .06 * np.sin(t / 5))
        noisy = rng.poisson(light * 900) / 900 + rng.normal(0, .004, light.shape)
        yield (noisy.clip(0, 1) ** (1 / 2.2) * 255 + .5).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--size", default="240x144")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--crf", type=int, default=22)
    a = parser.parse_args()
    size = tuple(map(int, a.size.split("x")))
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", a.size, "-r", str(a.fps), "-i", "-",
               "-c:v", "libx264", "-threads", "1", "-crf", str(a.crf), "-pix_fmt", "yuv420p", "-colorspace", "bt709", "-color_trc", "bt709",
               "-color_primaries", "bt709", "-vf", "scale=out_color_matrix=bt709", a.out]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        for frame in film(size, a.frames):
            encoder.stdin.write(frame.tobytes())
        encoder.stdin.close()
        if encoder.wait():
            raise SystemExit("ffmpeg failed")


if __name__ == "__main__":
    main()
