#!/usr/bin/env python3
"""Golden data for pipeline/schedule and pipeline/solver from diffusers' schedulers.

schedule.safetensors: sigmas and timesteps of every grid.
solver.safetensors:   per case the velocities that were fed in and the samples that came out, in
                      float64 (the formulas) and float32 (what a diffusers user gets).

usage: golden_solver.py OUT [--seed N] [--size N]
"""
import argparse
import pathlib

import diffusers
import numpy as np
import torch
from diffusers import (DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler,
                       UniPCMultistepScheduler)
from safetensors.torch import save_file

TRAIN = 1000
NEW_GRID = tuple(int(x) for x in diffusers.__version__.split(".")[:2]) >= (0, 37)


def shifted(shift, sigma):
    return shift * sigma / (1 + (shift - 1) * sigma)


def wan_grid(n, shift):
    """UniPCMultistepScheduler.set_timesteps with flow sigmas, diffusers <= 0.36."""
    sigma = np.flip(shifted(shift, 1.0 - np.linspace(1, 1 / TRAIN, n + 1)))[:-1].copy()
    return sigma.astype(np.float32), (sigma * TRAIN).astype(np.int64)


def diffusers_grid(n, shift):
    """The same method from diffusers 0.37 on."""
    sigma = shifted(shift, np.linspace(1, 1 / TRAIN, n + 1)[:-1])
    if abs(sigma[0] - 1) < 1e-6:
        sigma[0] -= 1e-6
    return sigma.astype(np.float32), (sigma * TRAIN).astype(np.int64)


def flow(cls, shift):
    return cls(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
               num_train_timesteps=TRAIN)


def scheduler(solver, grid, n, shift):
    if solver == "euler":
        s = FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN, shift=shift)
        if grid == "linear":
            s.set_timesteps(sigmas=np.linspace(1, 0, n + 1)[:-1])
        else:
            s.set_timesteps(n)
        return s
    s = flow(UniPCMultistepScheduler if solver == "unipc" else DPMSolverMultistepScheduler, shift)
    s.set_timesteps(n)
    sigma, timestep = (wan_grid if grid == "wan" else diffusers_grid)(n, shift)
    own = "diffusers" if NEW_GRID and solver == "unipc" else "wan"
    if grid == own:  # the formulas above are what the installed release does
        assert np.array_equal(s.sigmas.numpy()[:-1], sigma), (grid, n, shift)
        assert np.array_equal(s.timesteps.numpy(), timestep), (grid, n, shift)
    s.sigmas = torch.cat([torch.from_numpy(sigma), torch.zeros(1)])
    s.timesteps = torch.from_numpy(timestep)
    return s


def velocity(x, sigma, mix, bias):
    return torch.tanh(mix @ x + bias * (1 + sigma))


def run(solver, grid, n, shift, strength, x, dtype, mix, bias, fed=None):
    """One trajectory. fed: velocities of an earlier run, or None to evaluate the function."""
    torch.set_default_dtype(dtype)
    s = scheduler(solver, grid, n, shift)
    s.sigmas = s.sigmas.to(dtype)
    begin = n - min(int(n * strength), n)
    s.set_begin_index(begin)
    x = x.to(dtype).reshape(1, 1, -1)
    xs, vs = [x.flatten()], []
    for k, i in enumerate(range(begin, n)):
        v = fed[k].to(dtype) if fed is not None else velocity(x.flatten(), s.sigmas[i], mix, bias)
        v = v.float().to(dtype)  # both runs and the program get the same float32 values
        x = s.step(v.reshape(x.shape), s.timesteps[i], x, return_dict=False)[0]
        xs.append(x.flatten())
        vs.append(v.float())
    torch.set_default_dtype(torch.float32)
    return torch.stack(xs).float(), torch.stack(vs)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--size", type=int, default=12, help="elements of the sample")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    meta = {"torch": torch.__version__, "diffusers": diffusers.__version__,
            "numpy": np.__version__, "source": "tools/golden_solver.py"}

    grids = {}
    for grid in ("wan", "diffusers", "flow-euler", "linear"):
        solver = "euler" if grid in ("flow-euler", "linear") else "unipc"
        for n in (1, 2, 3, 4, 10, 20, 25, 50, 117, 1000):
            for shift in (1.0, 3.0, 5.0, 9.0, 12.0, 2.37) if n < 1000 else (3.0,):
                s = scheduler(solver, grid, n, shift)
                grids[f"{grid}/{n}/{shift}/sigma"] = s.sigmas.float()
                grids[f"{grid}/{n}/{shift}/timestep"] = s.timesteps.float()
    save_file(grids, args.out / "schedule.safetensors", metadata=meta)

    torch.manual_seed(args.seed)
    mix = torch.randn(args.size, args.size, dtype=torch.float64) / args.size**0.5
    bias = torch.randn(args.size, dtype=torch.float64)
    start = torch.randn(args.size)
    data = {"start": start}
    worst = {}
    for solver, grid in (("unipc", "wan"), ("unipc", "diffusers"), ("dpm++", "wan"),
                         ("euler", "flow-euler"), ("euler", "linear")):
        for n in (1, 2, 4, 20, 50):
            for shift in (3.0, 5.0, 9.0):
                for strength in (1.0, 0.7) if n >= 4 else (1.0,):
                    common = (solver, grid, n, shift, strength, start)
                    exact, v = run(*common, torch.float64, mix, bias)
                    single, _ = run(*common, torch.float32, mix.float(), bias.float(), fed=v)
                    name = f"{solver}/{grid}/{n}/{shift}/{strength}"
                    data[f"{name}/velocity"] = v
                    data[f"{name}/sample"] = exact
                    data[f"{name}/sample_f32"] = single
                    gap = ((exact - single).abs().max() / exact.abs().max()).item()
                    worst[solver] = max(worst.get(solver, 0), gap)
    save_file(data, args.out / "solver.safetensors", metadata=meta)
    print("diffusers in float32 against itself in float64, relative:", worst)


if __name__ == "__main__":
    main()
