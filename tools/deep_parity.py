#!/usr/bin/env python3
"""Parity beyond the committed golden data: fresh cases at other dimensions, seeds and weight dtypes.

For every seed and dtype, each part's tools/golden_*.py writes new data into a temporary folder and the
part's golden programs run on it. Exit status 1 if any program fails.

usage: deep_parity.py BUILD [--parts text,vae,dit,solver] [--seeds 11,12] [--dtypes f32,bf16,f16]
                            [--cases N] [--keep FOLDER]
  BUILD   build folder with the golden programs
  --keep  write the data here and leave it
"""
import argparse
import pathlib
import random
import subprocess
import sys
import tempfile

TOOLS = pathlib.Path(__file__).resolve().parent


def generate(script, *arguments):
    command = [sys.executable, str(TOOLS / script), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")


def dit(out, seed, dtype, cases):
    generate("golden_dit.py", out, "--seed", seed, "--dtype", dtype, "--deep", cases)
    return ["golden_dit_forward"]


def vae(out, seed, dtype, cases):
    generate("golden_vae.py", out, "--seed", seed, "--dtype", dtype, "--deep", cases)
    return ["golden_vae_network"]


def solver(out, seed, dtype, cases):
    if dtype != "f32":  # samples are f32 whatever the weights are
        return []
    generate("golden_solver.py", out, "--seed", seed, "--size", 5 + seed % 40)
    return ["golden_pipeline_schedule", "golden_pipeline_solver"]


def text(out, seed, dtype, cases):
    if dtype == "f16":  # UMT5 checkpoints are f32 or bf16
        return []
    generate("golden_text.py", out)  # also the bucket table
    rng = random.Random(seed)
    for name in ("plain", "bf16", "long"):
        tokens = rng.randint(1, 200)
        dims = (rng.randint(1, 120), 2 * rng.randint(1, 40), rng.randint(1, 6), rng.randint(1, 200),
                rng.randint(1, 4), rng.randint(40, 300))
        generate("golden_text.py", out, "--name", name, "--dims", ",".join(map(str, dims)), "--seed",
                 seed, "--dtype", dtype, "--tokens", tokens, "--max-len", tokens + rng.randint(0, 60),
                 "--buckets", rng.choice(["32,128", "8,20", "16,64"]))
    return ["golden_text_umt5"]


PARTS = {"text": text, "vae": vae, "dit": dit, "solver": solver}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build", type=pathlib.Path)
    p.add_argument("--parts", default=",".join(PARTS))
    p.add_argument("--seeds", default="11,12")
    p.add_argument("--dtypes", default="f32,bf16,f16")
    p.add_argument("--cases", type=int, default=4, help="of each part that can choose")
    p.add_argument("--keep", type=pathlib.Path)
    args = p.parse_args()
    failed = ran = 0
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or pathlib.Path(temporary)
        for part in args.parts.split(","):
            for seed in map(int, args.seeds.split(",")):
                for dtype in args.dtypes.split(","):
                    out = root / f"{part}-{seed}-{dtype}"
                    for program in PARTS[part](out, seed, dtype, args.cases):
                        result = subprocess.run([str(args.build / "tests" / program), str(out)],
                                                capture_output=True, text=True)
                        ran += 1
                        failed += result.returncode != 0
                        print(f"== {part}, seed {seed}, {dtype}: {program}: "
                              f"{'FAILED' if result.returncode else 'passed'}")
                        lines = (result.stdout + result.stderr).splitlines()
                        print("\n".join("   " + x for x in lines if x.strip() and not x.startswith("[=") ))
    print(f"{ran} runs, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
