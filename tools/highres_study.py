#!/usr/bin/env python3
"""Refine stages over many prompts: objects counted, fidelity, sharpness; the tables of docs/highres.md.

    tools/highres_study.py run --kinora build/kinora --set all --out study.json --sheets sheets
    tools/highres_study.py report study.json

`run` renders every variant of a set (below: SETS) for every fourth prompt of demo/prompts_heldout.txt, seed = its
line number, through `kinora batch` in several processes, and measures each clip as soon as it is there:

  objects      of the asked color, by demo/count_objects.py (method and limits there); at 4x a second count takes in
               those of a native object's size in pixels, which are a sixteenth of the one that was asked for
  fidelity     PSNR of the frames averaged down to the native size against the native clip
  sharpness    mean absolute difference of neighboring pixels, both directions, luma; in the report over that of the
               native clip enlarged bilinearly
  difference   PSNR against the same prompt's clip of the variant named as its reference

Variants are in order of importance: what --seconds cuts off is left out of the result. Needs numpy and Pillow.
"""
import argparse
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "demo"))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
import numpy as np  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

import clip_metrics as m  # noqa: E402
from check_prompts import asked_color  # noqa: E402
from count_objects import count_clip  # noqa: E402

NATIVE = "native"


def variant(name, flags, ref=None, base=True, share=1, late=False):
    """flags: options of kinora. base: refines the native clip's latents. share 2: every second prompt only. late: every
    second prompt, and the others after all variants. Positions are as published where nothing else is said, whatever the
    model's own default is."""
    flags = {"full-positions": "own"} | dict(f.split("=", 1) for f in flags.split())
    return dict(name=name, flags=flags, ref=ref, base=base, share=share, late=late)


OVERRIDE = "override=true refresh=1 "
FITTED = "full-positions=fitted "
SIZES = (("2x", "2x"), ("4x", "2x,4x"))


def main_set():
    """Refined from the native clip with the model's own settings, and rendered directly from noise."""
    direct = "strength=1 refine-guidance=3"
    yield variant(NATIVE, "", base=False)
    for scale, size, full in (("2x", "2x", "320x192"), ("4x", "2x,4x", "640x384")):
        at = f"refine-size={size} "
        yield variant(f"{scale} window", at)
        yield variant(f"{scale} override", at + OVERRIDE, f"{scale} window")
        yield variant(f"{scale} override fitted", at + OVERRIDE + FITTED, f"{scale} window")
        yield variant(f"{scale} dense", at + "attention=dense", f"{scale} window")
        yield variant(f"{scale} dense fitted", at + "attention=dense " + FITTED, f"{scale} window")
        at = f"refine-size={scale} {direct} "
        yield variant(f"{scale} direct window", at)
        yield variant(f"{scale} direct override", at + OVERRIDE)
        yield variant(f"{scale} direct override fitted", at + OVERRIDE + FITTED)
        yield variant(f"{scale} direct dense", f"size={full}", base=False)
        yield variant(f"{scale} direct dense fitted", at + "attention=dense " + FITTED)
    at = "refine-size=2x,4x strength=1,0.4 refine-guidance=3,2 "
    yield variant("4x staged window", at)
    yield variant("4x staged override fitted", at + OVERRIDE + FITTED)


def upscale_set(share=1):
    """How a stage's input is enlarged, beside the bilinear of the main set."""
    yield variant(NATIVE, "", base=False)
    for scale, size in SIZES:
        yield variant(f"{scale} window", f"refine-size={size}")
        for how in ("lanczos", "latent"):
            yield variant(f"{scale} window {how}", f"refine-size={size} upscale={how}", f"{scale} window", share=share)


def caching_set(sizes=SIZES, share=2, fitted=FITTED):
    """How long the second branch's contexts are kept, and for which prompts."""
    yield variant(NATIVE, "", base=False)
    override = "override" + (" fitted" if fitted else "")
    for scale, size in sizes:
        yield variant(f"{scale} window", f"refine-size={size}")
        yield variant(f"{scale} {override}", f"refine-size={size} " + OVERRIDE + fitted, f"{scale} window")
        for who, n in (("both", 2), ("both", 5), ("prompt", 1), ("prompt", 2), ("prompt", 5)):
            yield variant(f"{scale} {override} {who} n={n}", f"refine-size={size} override=true override-for={who} refresh={n} " + fitted,
                          f"{scale} {override}", share=share)


def sweep_set(scale="2x", strengths=("0.8", "0.7", "0.9"), share=1):
    """From a light refinement to pure noise: where does each method keep one object?"""
    yield variant(NATIVE, "", base=False)
    for strength in strengths:
        at = f"refine-size=2x strength={strength} " if scale == "2x" else f"refine-size=2x,4x strength={strength},0.4 "
        yield variant(f"{scale} {strength} window", at, share=share)
        for how in ("", FITTED):
            name = " fitted" if how else ""
            yield variant(f"{scale} {strength} override{name}", at + OVERRIDE + how, share=share)
            yield variant(f"{scale} {strength} dense{name}", at + "attention=dense " + how, share=share)


def ways_set(strength, fitted=FITTED, more="", share=1, late=True):
    """Ways to let a full branch steer, where the window alone repeats the object."""
    yield variant(NATIVE, "", base=False)
    at = f"refine-size=2x strength={strength} {more}"
    ways = {f"steps {n}": f"override-steps={n}" for n in (2, 4, 8)}
    ways.update({f"n={n}": f"override-for=both refresh={n}" for n in (2, 5)})
    ways["prompt only"] = "override-for=prompt"
    ways.update({f"temperature {t}": f"temperature={t}" for t in ("off", "1.2", "1.4")})
    ways.update({f"layers {r}": f"override-layers={r}" for r in ("1-4", "5-8")})
    ways.update({f"full {full} 0.25": f"full-attention={full} density=0.25" for full in ("draft", "permute")})
    suffix = " fitted" if fitted else ""
    for name, flags in ways.items():
        yield variant(f"2x {strength} override{suffix} {name}", at + OVERRIDE + fitted + flags, share=share, late=late)
    for n in (2, 4, 8):
        yield variant(f"2x {strength} window{suffix} dense steps {n}", at + f"{fitted}dense-steps={n}", share=share, late=late)
    if not fitted:
        for t in ("off", "1.2", "1.4"):
            yield variant(f"2x {strength} window temperature {t}", at + f"temperature={t}", share=share, late=late)


def cached_set(strength="0.7", share=1):
    """What keeping the contexts costs at the strength of the presets quality and cached."""
    yield variant(NATIVE, "", base=False)
    at, ref = f"refine-size=2x strength={strength} " + FITTED, f"2x {strength} override fitted"
    yield variant(ref, at + OVERRIDE)
    for who, n in (("both", 2), ("both", 5), ("prompt", 1), ("prompt", 5)):
        yield variant(f"{ref} {who} n={n}", at + f"override=true override-for={who} refresh={n}", ref, share=share)


def methods_set(share=4):
    """The sparse methods in place of the window."""
    yield variant(NATIVE, "", base=False)
    for scale, size in SIZES[::-1]:
        at, window = f"refine-size={size} ", f"{scale} window"
        yield variant(window, at)
        yield variant(f"{scale} tile3d", at + "attention=tile3d", window, share=share)
        yield variant(f"{scale} tile3d fitted", at + FITTED + "attention=tile3d", window, share=share)
        yield variant(f"{scale} tile3d all steps", at + "attention=tile3d dense-steps=0", window, share=share)
        yield variant(f"{scale} cross", at + "attention=cross", window, share=share)
        for density in (.25, .1):
            at = f"refine-size={size} density={density} "
            yield variant(f"{scale} draft {density:g}", at + "attention=draft", window, share=share)
            yield variant(f"{scale} draft within {density:g}", at + "attention=draft within-density=true", window, share=share)
            yield variant(f"{scale} permute {density:g}", at + "attention=permute", window, share=share)


def combined_set():
    """Options of the override together, from noise with fitted positions; the best of them at 4x by way of 2x."""
    yield variant(NATIVE, "", base=False)
    at = "refine-size=2x strength=1 refine-guidance=3 " + OVERRIDE + FITTED
    ways = {"temperature off": "temperature=off", "temperature off n=5": "temperature=off override-for=both refresh=5",
            "dense steps 4": "dense-steps=4", "dense steps 8": "dense-steps=8", "temperature off dense steps 4": "temperature=off dense-steps=4",
            "temperature 0.9": "temperature=0.9", "temperature off full draft 0.25": "temperature=off full-attention=draft density=0.25"}
    for name, flags in ways.items():
        yield variant(f"2x 1 override fitted {name}", at + flags)
    at = "refine-size=2x,4x strength=1,0.4 refine-guidance=3,2 " + OVERRIDE + FITTED
    for name, flags in (("temperature off", "temperature=off"), ("dense steps 8", "dense-steps=8"), ("n=5", "override-for=both refresh=5")):
        yield variant(f"4x staged override fitted {name}", at + flags, share=2)


def united(*sets):
    """Each variant once, in the order of its first mention."""
    names = set()
    for one in sets:
        for v in one:
            if v["name"] not in names:
                names.add(v["name"])
                yield v


def search_set():
    """Where does the override help? Strength, then every other option of it, at strengths where windows no longer agree."""
    direct = "refine-guidance=3 "
    return united(sweep_set("2x", ("0.9", "0.6", "0.95")), ways_set("0.8", ""), ways_set("1", more=direct), cached_set(),
                  ways_set("0.8"), ways_set("1", "", direct), sweep_set("4x", ("0.8", "0.7"), 2), methods_set(),
                  ways_set("0.5", share=4, late=False))


def all_sets():
    return united(main_set(), upscale_set(), caching_set(), sweep_set(), search_set(), caching_set(fitted=""))


SETS = {"main": main_set, "sweep": sweep_set, "upscale": upscale_set, "caching": caching_set, "methods": methods_set,
        "ways": lambda: ways_set("0.8"), "cached": cached_set, "combined": combined_set, "search": search_set,
        "rest": lambda: united(sweep_set("4x", ("0.8", "0.7"), 2), methods_set(), combined_set(), search_set()), "all": all_sets,
        "caching2": lambda: caching_set(SIZES[:1], 1), "caching4": lambda: caching_set(SIZES[1:], 1)}


SMALL = 40  # pixels at counting size: objects of the native size in a picture four times as large


def measure(folder, native, ref, color):
    """Of one clip; folders of PNG frames. The clip is enlarged by a whole factor or is of the native size."""
    x = m.frames(folder)
    count, smear = count_clip(x / 255, color)
    out = dict(count=count, smear=smear, sharpness=m.sharpness(x))
    base = m.frames(native)
    if x.shape[1] >= 4 * base.shape[1]:
        out["count_small"] = count_clip(x / 255, color, SMALL)[0]
    out["fidelity"] = m.psnr(m.reduced(x, x.shape[1] // base.shape[1]), base)
    out["sharpness_enlarged"] = m.sharpness(m.enlarged(base, x.shape[1:3]))
    if ref:
        out["difference"] = m.psnr(x, m.frames(ref))
    return out


class Run:
    def __init__(self, a):
        self.a = a
        with open(a.prompts) as f:
            lines = [line.strip() for line in f if line.strip()]
        self.prompts = [(i + 1, lines[i]) for i in range(a.first, len(lines), a.every)]
        self.variants = list(SETS[a.set]())
        self.work = os.path.abspath(a.work)
        os.makedirs(self.work, exist_ok=True)
        self.jobs = {}  # clip name -> (variant, prompt number)
        self.results = {v["name"]: {} for v in self.variants}
        for path in a.have:
            with open(path) as f:
                for v in json.load(f)["variants"]:
                    if v["name"] in self.results:
                        self.results[v["name"]].update({int(line): clip for line, clip in v["clips"].items()})

    def clip(self, v, line):
        return f"{v['name'] if isinstance(v, dict) else v} {line}".replace(" ", "_").replace("=", "")

    def write_table(self, path, variants):
        keys = sorted({k for v in variants for k in v["flags"]})
        with open(path, "w", newline="") as f:
            table = csv.writer(f)
            table.writerow(["name", "prompt", "seed", "latents-in", "latents-out", "frames-dir"] + keys)
            order = [(v["late"] and n % 2, i, n) for i, v in enumerate(variants) for n in range(0, len(self.prompts), v["share"])]
            rows = [(variants[i], self.prompts[n]) for _, i, n in sorted(order)]
            missing = {(v["name"], line) for v, (line, _) in rows if line not in self.results[v["name"]]}
            refs = {(v["ref"], line) for v in variants for name, line in missing if name == v["name"]}
            for v, (line, prompt) in rows:
                if v["name"] != NATIVE and (v["name"], line) not in missing | refs:
                    continue
                name = self.clip(v, line)
                self.jobs[name] = (v, line, prompt)
                table.writerow([name, prompt, line,
                                f"{self.work}/{self.clip(NATIVE, line)}.safetensors" if v["base"] else "",
                                "{name}.safetensors", "{name}"] + [v["flags"].get(k, "") for k in keys])

    def start(self, path, count):
        a = self.a
        log = open(f"{self.work}/log", "a")
        command = [a.kinora, "batch", path, "--model", a.model, "--device", a.device, "--output-dir", self.work,
                   "--progress", "none", "--checkpoint-every", "0", "--resume", "--threads", "1"]
        # Few jobs are shared by their locks, which balances; many are dealt out, which reads the results less often.
        dealt = len(self.jobs) > 200
        return [subprocess.Popen(command + (["--shard", f"{i + 1}/{count}"] if dealt else []), stdout=log, stderr=log)
                for i in range(count)]

    def ready(self, v, line, done):
        return v["ref"] not in self.results or self.clip(v["ref"], line) in done

    def finished(self):
        done = {}
        try:
            with open(f"{self.work}/results.jsonl") as f:
                for text in f:
                    o = json.loads(text) if text.endswith("\n") else {}
                    if o.get("status") == "done":
                        done[o["name"]] = o["seconds"]["denoise"]
        except FileNotFoundError:
            pass
        return done

    def follow(self, processes, pool, deadline):
        """Hands finished clips to the pool until the processes end."""
        open_jobs, saved = {}, time.monotonic()
        while True:
            ended = all(p.poll() is not None for p in processes)
            done = self.finished()
            for name in done.keys() & self.jobs.keys():
                v, line, prompt = self.jobs[name]
                if name in open_jobs or not self.ready(v, line, done):
                    continue
                ref = f"{self.work}/{self.clip(v['ref'], line)}" if v["ref"] in self.results else None
                open_jobs[name] = pool.submit(measure, f"{self.work}/{name}", f"{self.work}/{self.clip(NATIVE, line)}", ref,
                                              asked_color(prompt))
            if ended and all(job.done() for job in open_jobs.values()):
                break
            if time.monotonic() > deadline:
                for p in processes:
                    if p.poll() is None:
                        p.send_signal(signal.SIGINT)
            if time.monotonic() > saved + 10:
                self.collect(open_jobs, done)
                self.save()
                saved = time.monotonic()
            time.sleep(.5)
        self.collect(open_jobs, done)

    def collect(self, open_jobs, done):
        for name, job in open_jobs.items():
            v, line, _ = self.jobs[name]
            if job.done():
                self.results[v["name"]][line] = dict(job.result(), seconds=done[name])

    def save(self):
        """After every ten seconds, so that a run that is cut off leaves what it has."""
        out = dict(set=self.a.set, device=self.a.device, prompts=dict(self.prompts), seconds=time.monotonic() - self.begin, variants=[
            dict(name=v["name"], flags=v["flags"], ref=v["ref"], clips=self.results[v["name"]]) for v in self.variants])
        with open(self.a.out + ".tmp", "w") as f:
            json.dump(out, f)
        os.replace(self.a.out + ".tmp", self.a.out)

    def run(self):
        begin = self.begin = time.monotonic()
        deadline = begin + self.a.seconds
        native = [v for v in self.variants if v["name"] == NATIVE]
        rest = [v for v in self.variants if v["name"] != NATIVE]
        with ProcessPoolExecutor(self.a.measurers) as pool:
            for number, variants in enumerate((native, rest)):
                path = f"{self.work}/{self.a.set}_{number}.csv"
                self.jobs = {}
                self.write_table(path, variants)
                self.follow(self.start(path, self.a.processes), pool, deadline)
                print(f"{sum(len(r) for r in self.results.values())} clips after {time.monotonic() - begin:.0f} s", flush=True)
        self.save()

    def sheets(self, folder, lines):
        """One picture a prompt and size: a row for each variant, first, middle and last frame."""
        os.makedirs(folder, exist_ok=True)
        for line in lines:
            rows = {}
            for v in self.variants:
                path = f"{self.work}/{self.clip(v, line)}"
                names = sorted(os.listdir(path)) if line in self.results[v["name"]] and os.path.isdir(path) else []
                if not names:
                    continue
                pick = [Image.open(f"{path}/{names[i]}").convert("RGB").resize((240, 144), Image.BOX if v["name"] != NATIVE
                                                                             else Image.NEAREST) for i in (0, len(names) // 2, -1)]
                rows.setdefault(v["name"].split()[0], []).append((v["name"], pick))
            for scale, picks in rows.items():
                sheet = Image.new("RGB", (3 * 244, 160 * len(picks)))
                for y, (name, pick) in enumerate(picks):
                    ImageDraw.Draw(sheet).text((4, 160 * y), name)
                    for x, picture in enumerate(pick):
                        sheet.paste(picture, (244 * x, 160 * y + 12))
                sheet.save(f"{folder}/{self.a.set}_{scale}_{line}.jpg", quality=80)


def report(paths):
    for path in paths:
        with open(path) as f:
            data = json.load(f)
        print(f"{path}: {data['device']}, {data['seconds']:.0f} s\n")
        print("| clips | of | exactly one | none | several | smear | objects, mean | fidelity dB | sharpness | difference dB | seconds |"
              " small copies too: one, none, several, mean |")
        print("| --- " * 12 + "|")
        for v in data["variants"]:
            r = list(v["clips"].values())
            if not r:
                continue

            def spread(key):
                values = [x[key] for x in r if key in x and math.isfinite(x[key])]
                return "{:.2f} ± {:.2f}".format(*m.mean_sd(values)) if values else ""
            small = [x["count_small"] for x in r if "count_small" in x]
            small = f"{small.count(1)}, {small.count(0)}, {sum(n > 1 for n in small)}, {np.mean(small):.1f}" if small else ""
            for x in r:
                x["relative"] = x["sharpness"] / x["sharpness_enlarged"]
            print(f"| {v['name']} | {len(r)} | {sum(x['count'] == 1 and not x['smear'] for x in r)} | {sum(x['count'] == 0 for x in r)}"
                  f" | {sum(x['count'] > 1 for x in r)} | {sum(x['smear'] for x in r)} | {np.mean([x['count'] for x in r]):.2f}"
                  f" | {spread('fidelity')} | {spread('relative')} | {spread('difference')} | {np.median([x['seconds'] for x in r]):.2f} | {small} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    r = sub.add_parser("run")
    r.add_argument("--kinora", default="build/kinora")
    r.add_argument("--model", default="demo/model")
    r.add_argument("--prompts", default="demo/prompts_heldout.txt")
    r.add_argument("--first", type=int, default=0)
    r.add_argument("--every", type=int, default=4)
    r.add_argument("--set", choices=SETS, default="all")
    r.add_argument("--device", default="cuda")
    r.add_argument("--processes", type=int, default=8, help="that render")
    r.add_argument("--measurers", type=int, default=6, help="processes that measure")
    r.add_argument("--seconds", type=float, default=3600, help="stop rendering after that")
    r.add_argument("--work", default="highres_study", help="folder of the clips; finished ones are used again")
    r.add_argument("--out", default="highres_study.json")
    r.add_argument("--have", nargs="+", default=[], help="results of earlier runs: their clips are not made again, but those that "
                   "others are measured against are")
    r.add_argument("--sheets", help="folder of pictures")
    r.add_argument("--sheet-lines", type=int, nargs="+", default=[1, 41, 81, 121])
    s = sub.add_parser("report")
    s.add_argument("files", nargs="+")
    a = p.parse_args()
    if a.command == "report":
        return report(a.files)
    run = Run(a)
    run.run()
    if a.sheets:
        run.sheets(a.sheets, a.sheet_lines)


if __name__ == "__main__":
    main()
