"""Train the demo model from nothing: VAE, then latents, then DiT + text encoder, then samples.

    torchrun --nproc_per_node=2 train.py --out run --vae-seconds 220 --dit-seconds 800

Works on any number of GPUs (each makes its own clips; gradients are averaged) and,
for trying the code, on a CPU (DEV=cpu with the small numbers of --tiny).  The stages
are timed in seconds, so the result depends on the machine; see README.md.
"""
import argparse
import datetime
import json
import math
import os
import random
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check_prompts                                                   # noqa: E402
import data                                                            # noqa: E402
import wan_torch                                                       # noqa: E402
from optimizer import FlatOptimizer                                    # noqa: E402
from sample import Demo                                                # noqa: E402
from tokenizer import Tokenizer                                        # noqa: E402


def arguments():
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--out", default="run", help="folder for weights, log and pictures")
    add("--tokenizer", default=os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                            "model", "tokenizer", "spiece.model"))
    add("--vae-seconds", type=float, default=220)
    add("--dit-seconds", type=float, default=800)
    add("--deadline", type=float, default=0, help="end DiT training by this age of the process")
    add("--load-vae", default="", help="vae.pt of an earlier run instead of VAE training")
    # VAE
    add("--vae-lr", type=float, default=4e-3)
    add("--crop", type=int, default=64)
    add("--crop-batch", type=int, default=32)
    add("--crop-clips", type=int, default=12288)
    add("--full-batch", type=int, default=12)
    add("--full-clips", type=int, default=3072)
    add("--full-share", type=float, default=.3, help="last part of the time, on whole frames")
    add("--object-weight", type=float, default=6.0)
    add("--kl-weight", type=float, default=2e-4)
    add("--latent-noise", type=float, default=.07, help="relative to the latents' deviation")
    # DiT
    add("--dit-lr", type=float, default=2.5e-3)
    add("--batch", type=int, default=192)
    add("--native-clips", type=int, default=49152)
    add("--zoomed-clips", type=int, default=24576)
    add("--zoomed-below", type=float, default=.82, help="zoomed clips only under this sigma")
    add("--zoomed-share", type=float, default=.4)
    add("--caption-variants", type=int, default=4)
    add("--object-emphasis", type=float, default=2.0, help="extra loss in the object, low sigma")
    add("--check-prompts", type=int, default=160)
    add("--render-batch", type=int, default=128)
    add("--tiny", action="store_true", help="small numbers to try the code")
    options = parser.parse_args()
    if options.tiny:
        small = dict(crop_batch=2, crop_clips=8, full_batch=1, full_clips=4, batch=4,
                     native_clips=8, zoomed_clips=8, check_prompts=4, render_batch=4)
        for name, value in small.items():
            setattr(options, name, value)
    return options


class Run:
    """Devices, ranks, logging."""

    def __init__(self, options):
        self.start = time.time()
        self.options = options
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.cuda = os.environ.get("DEV", "cuda") != "cpu"
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if self.cuda \
            else torch.device("cpu")
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        if self.cuda:
            torch.cuda.set_device(self.device)
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        if self.world > 1:
            dist.init_process_group("nccl" if self.cuda else "gloo",
                                    timeout=datetime.timedelta(minutes=8))
        torch.manual_seed(1234)                      # same initial weights everywhere
        self.rng = random.Random(7 + self.rank)      # different clips
        os.makedirs(options.out, exist_ok=True)
        self.log_file = open(self.path("log.txt"), "a") if self.rank == 0 else None

    def path(self, name):
        return os.path.join(self.options.out, name)

    def log(self, **values):
        if self.rank == 0:
            values = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
            line = json.dumps(dict(t=round(time.time() - self.start, 1), **values))
            print(line, flush=True)
            self.log_file.write(line + "\n")
            self.log_file.flush()

    def sync(self):
        if self.cuda:
            torch.cuda.synchronize()

    def average(self, tensor):
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor.div_(self.world)
        return tensor

    def share(self, tensor):
        """Everyone gets rank 0's values."""
        if self.world > 1:
            dist.broadcast(tensor, 0)
        return tensor

    def save(self, value, name):
        if self.rank == 0:
            torch.save(value, self.path(name + ".part"))
            os.replace(self.path(name + ".part"), self.path(name))


def capture(run, function):
    """function as a CUDA graph (it must have run a few times on a side stream before)."""
    if not run.cuda:
        return function
    run.sync()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    run.sync()
    return graph.replay


class Stepper:
    """Training steps: gradients (graph), average over GPUs, optimiser (graph)."""

    def __init__(self, run, gradients, optimizer):
        self.run, self.optimizer = run, optimizer
        optimizer.lr.fill_(1e-5)
        stream = torch.cuda.Stream() if run.cuda else None
        if stream:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    gradients()
                    run.average(optimizer.grads)
                    optimizer.step()
            torch.cuda.current_stream().wait_stream(stream)
        self.gradients = capture(run, gradients)
        self.update = capture(run, optimizer.step)

    def __call__(self):
        self.gradients()
        if self.run.world > 1:
            self.run.average(self.optimizer.grads)
        self.update()


class Clock:
    """Share of the stage's time gone by, agreed by all ranks; read it every few steps."""

    def __init__(self, run, seconds):
        self.run, self.seconds, self.start = run, seconds, time.time()

    def read(self):
        gone = torch.tensor([(time.time() - self.start) / self.seconds], device=self.run.device)
        return self.run.share(gone).item()


# ---------------------------------------------------------------- VAE


def clip_pool(run, count, crop=None):
    """uint8 clips [n,T,H,W,4]: red, green, blue, object weight"""
    height, width = (crop, crop) if crop else (96, 160)
    pool = torch.empty(count, data.CLIP_FRAMES, height, width, 4, dtype=torch.uint8,
                       device=run.device)
    chunk = min(run.options.render_batch, count)
    for i in range(0, count, chunk):
        scenes = data.sample_scenes(chunk, run.rng)
        window = {}
        if crop:
            zoom, offset = data.windows(scenes, run.rng, height, width, 1.0, 4.0, .45, .75)
            window = dict(zoom=zoom.to(run.device), offset=offset.to(run.device))
        video, weight = data.render(scenes, height=height, width=width, device=run.device,
                                    **window)
        clip = torch.cat([video, weight], 1).permute(0, 2, 3, 4, 1)
        pool[i:i + chunk] = (clip * 255 + .5).byte()[:count - i]
    return pool


def pool_batch(run, pool, count, crop=None):
    """-> frames [B*T,3,h,w] in [-1,1] and object weights [B*T,1,h,w]"""
    device = run.device
    index = torch.randint(0, len(pool), (count,), device=device)
    if crop is None:
        clips = pool[index]
    else:
        room = pool.shape[2] - crop + 1
        top, left = [torch.randint(0, room, (count,), device=device)[:, None] for _ in range(2)]
        line = torch.arange(crop, device=device)
        times = torch.arange(data.CLIP_FRAMES, device=device)
        clips = pool[index[:, None, None, None], times[None, :, None, None],
                     (top + line)[:, None, :, None], (left + line)[:, None, None, :]]
    frames = clips.reshape(-1, *clips.shape[2:]).permute(0, 3, 1, 2).to(run.dtype) / 255
    pixels = frames[:, :3] * 2 - 1
    return pixels.contiguous(memory_format=torch.channels_last), frames[:, 3:]


def vae_loss(output, target, weight, mean, logvar, options):
    """Charbonnier + spatial gradients (both weighted towards objects) + change in time + KL."""
    error = output.float() - target.float()
    weight = 1 + options.object_weight * weight.float()
    pixel = ((torch.sqrt(error * error + 1e-4) - .01) * weight).mean()
    across = ((error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]).mean()
    down = ((error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]).mean()
    clips = error.view(-1, data.CLIP_FRAMES, *error.shape[1:])
    flicker = (clips[:, 1:] - clips[:, :-1]).abs().mean()
    kl = .5 * (mean ** 2 + torch.exp(logvar) - 1 - logvar).mean()
    loss = pixel + .35 * (across + down) + .2 * flicker + options.kl_weight * kl
    return loss, (error * error).mean(), kl


@torch.no_grad()
def vae_psnr(run, vae, picture=None):
    """PSNR over held-out scenes: (whole picture, inside the object weight map)"""
    scenes = data.held_out_scenes()[::3][:8 if run.options.tiny else 54]
    whole, inside, pairs = [], [], []
    chunk = min(16, run.options.render_batch)
    for i in range(0, len(scenes), chunk):
        video, weight = data.render(scenes[i:i + chunk], device=run.device)
        video = video * 2 - 1
        latent, _ = vae.encode(video.to(run.dtype))
        output = vae.decode(latent).float().clamp(-1, 1)
        error = (output - video) ** 2
        whole += (10 * torch.log10(4 / error.flatten(1).mean(1))).tolist()
        in_object = (error.mean(1, keepdim=True) * weight).flatten(1).sum(1)
        inside += (10 * torch.log10(4 * weight.flatten(1).sum(1) / in_object)).tolist()
        if len(pairs) < 24:
            pairs += [(clip + 1) / 2 for pair in zip(video[:4], output[:4]) for clip in pair]
    if picture and run.rank == 0:
        data.save_sheet(pairs, picture, columns=2)
    return sum(whole) / len(whole), sum(inside) / len(inside)


def train_vae(run, vae):
    options = run.options
    optimizer = FlatOptimizer(vae.named_parameters(), adam_betas=(.9, .95), ema_decay=.998,
                              adam_names=("conv_in", "encoder.conv_out", "decoder.conv_out",
                                          "quant"))
    optimizer.ema.copy_(run.share(optimizer.values))
    torch.manual_seed(100 + run.rank)                # different noise on each GPU
    source = dict(pool=clip_pool(run, options.crop_clips, options.crop + 16),
                  crop=options.crop, count=options.crop_batch)
    averages = torch.zeros(3, device=run.device)     # loss, squared error, KL
    run.log(stage="vae", millions=wan_torch.parameter_count(vae) / 1e6)

    def gradients():
        frames, weight = pool_batch(run, source["pool"], source["count"], source["crop"])
        mean, logvar, steps = vae.encode_frames(frames, data.CLIP_FRAMES)
        mean, logvar = mean.float(), logvar.float().clamp(-20, 8)
        spread = mean.detach().std((0, 2, 3), keepdim=True)
        deviation = torch.exp(.5 * logvar) + options.latent_noise * spread
        latent = mean + torch.randn_like(mean) * deviation
        output, _ = vae.decode_frames(latent.to(run.dtype), steps)
        loss, squared, kl = vae_loss(output, frames, weight, mean, logvar, options)
        optimizer.grads.zero_()
        loss.backward()
        averages.lerp_(torch.stack([loss.detach(), squared, kl.detach()]), .02)

    step = Stepper(run, gradients, optimizer)
    run.log(captured="crops")
    clock = Clock(run, options.vae_seconds)
    iteration, whole_frames, gone, since = 0, False, 0.0, time.time()
    while True:
        if iteration % 10 == 0:
            gone = clock.read()
            if gone >= 1:
                break
            if not whole_frames and gone >= 1 - options.full_share:
                run.log(crop_iterations=iteration)
                source.update(pool=clip_pool(run, options.full_clips), crop=None,
                              count=options.full_batch)
                step = Stepper(run, gradients, optimizer)
                whole_frames = True
                run.log(captured="whole frames")
            if iteration % 200 == 0:
                run.share(optimizer.values)          # ranks cannot drift apart
        warm_up, decay = min(1, (iteration + 1) / 150), min(1, (1 - gone) / .5)
        optimizer.lr.fill_(options.vae_lr * warm_up * decay + 1e-6)
        step()
        iteration += 1
        if iteration % 500 == 0:
            loss, squared, kl = averages.tolist()
            run.log(it=iteration, loss=loss, psnr=10 * math.log10(4 / squared), kl=kl,
                    grad=optimizer.grad_norm.item(), its_per_s=500 / (time.time() - since))
            since = time.time()
    run.sync()
    optimizer.use_ema()
    run.share(optimizer.values)
    run.log(vae_iterations=iteration)
    del step, source
    run.save({k: v.to(torch.bfloat16) for k, v in vae.state_dict().items()}, "vae.pt")


# ---------------------------------------------------------------- latents


@torch.no_grad()
def encode_clips(run, vae, count, zoomed):
    """count random clips -> latents [n,16,5,12,20], object masks [n,5,12,20], scenes.

    Zoomed clips are native-sized windows of scenes drawn 1.3 to 4.5 times larger: what
    the model sees when it refines a picture of two or four times its own size.
    """
    latents, masks, all_scenes = [], [], []
    chunk = min(run.options.render_batch, count)
    for _ in range(0, count, chunk):
        scenes = data.sample_scenes(chunk, run.rng)
        window = {}
        if zoomed:
            zoom, offset = data.windows(scenes, run.rng, 96, 160, 1.3, 4.5, 1.0, .65)
            window = dict(zoom=zoom.to(run.device), offset=offset.to(run.device))
        video, weight = data.render(scenes, device=run.device, **window)
        mean, _ = vae.encode((video * 2 - 1).to(run.dtype))
        latents.append(mean.float())
        small = F.avg_pool2d(weight.flatten(0, 2)[:, None], 8).view(chunk, -1, 12, 20)
        masks.append(torch.cat([small[:, :1], small[:, 1:].unflatten(1, (4, 4)).mean(2)], 1))
        all_scenes += scenes
    return torch.cat(latents)[:count], torch.cat(masks)[:count].half(), all_scenes[:count]


def make_dataset(run, vae, tokenizer):
    options = run.options
    native, native_mask, scenes = encode_clips(run, vae, options.native_clips, False)
    dims = (0, 2, 3, 4)
    mean = run.average(native.mean(dims))
    square = run.average((native ** 2).mean(dims))
    std = (square - mean ** 2).sqrt()
    zoomed, zoomed_mask, more_scenes = encode_clips(run, vae, options.zoomed_clips, True)
    shape = (1, -1, 1, 1, 1)
    latents = torch.cat([native, zoomed])
    latents = ((latents - mean.view(shape)) / std.view(shape)).to(torch.bfloat16)
    masks = torch.cat([native_mask, zoomed_mask])
    captions = [data.caption(scene, run.rng) for scene in scenes + more_scenes
                for _ in range(options.caption_variants)]
    ids = torch.from_numpy(tokenizer(captions)).view(len(latents), options.caption_variants, -1)
    run.log(latents=list(latents.shape), mean=[round(v, 3) for v in mean.tolist()],
            std=[round(v, 3) for v in std.tolist()])
    return latents, masks, ids.to(run.device), mean, std


# ---------------------------------------------------------------- DiT and text encoder


def sample_sigmas(count, device):
    """Mostly logit-normal, as the shifted sampler spends its steps; a fifth uniform."""
    sigma = torch.sigmoid(torch.randn(count, device=device))
    sigma = 3 * sigma / (1 + 2 * sigma)
    even = torch.rand(count, device=device)
    return torch.where(torch.rand(count, device=device) < .2, even, sigma)


def train_dit(run, vae, tokenizer):
    options, device = run.options, run.device
    latents, masks, ids, mean, std = make_dataset(run, vae, tokenizer)
    run.save(dict(mean=mean.cpu(), std=std.cpu()), "statistics.pt")
    empty_ids = torch.from_numpy(tokenizer([""])).to(device)
    torch.manual_seed(4321)
    dit = wan_torch.DiT(**wan_torch.DIT_CONFIG)
    wan_torch.init_dit(dit)
    text_encoder = wan_torch.UMT5(**wan_torch.TEXT_CONFIG)
    dit, text_encoder = dit.to(device), text_encoder.to(device)
    named = [("dit." + n, p) for n, p in dit.named_parameters()]
    named += [("text." + n, p) for n, p in text_encoder.named_parameters()]
    optimizer = FlatOptimizer(named, adam_betas=(.9, .98), adam_ratio=.4, weight_decay=.02,
                              ema_decay=.999,
                              adam_names=("shared", "relative", "patch_embedding",
                                          "time_embedder", "proj_out", "scale_shift"))
    optimizer.ema.copy_(run.share(optimizer.values))
    torch.manual_seed(200 + run.rank)
    run.log(stage="dit", dit_millions=wan_torch.parameter_count(dit) / 1e6,
            text_millions=wan_torch.parameter_count(text_encoder) / 1e6)
    if run.cuda:
        for block in dit.blocks:
            block.compile()
    average = torch.zeros(1, device=device)
    batch, natives, total = options.batch, options.native_clips, len(latents)

    def gradients():
        sigma = sample_sigmas(batch, device)
        index = torch.randint(0, natives, (batch,), device=device)
        zoom = (sigma < options.zoomed_below) \
            & (torch.rand(batch, device=device) < options.zoomed_share)
        index = torch.where(zoom, torch.randint(natives, total, (batch,), device=device), index)
        clean = latents[index].float()
        variant = torch.randint(0, ids.shape[1], (batch,), device=device)
        tokens = ids[index, variant]
        tokens = torch.where(torch.rand(batch, 1, device=device) < .1, empty_ids, tokens)
        noise = torch.randn_like(clean)
        level = sigma.view(-1, 1, 1, 1, 1)
        velocity = dit((1 - level) * clean + level * noise, sigma * 1000, text_encoder(tokens),
                       dtype=run.dtype)
        # Once the object's place is settled its outline deserves more of the capacity.
        # (At high sigma such a weight would pull the prediction towards some objects.)
        settled = ((.75 - level) / .25).clamp(0, 1)
        weight = 1 + options.object_emphasis * settled * masks[index].float()[:, None]
        squared = (velocity.float() - (noise - clean)) ** 2
        loss = (squared * weight).mean()
        optimizer.grads.zero_()
        loss.backward()
        average.lerp_(squared.detach().mean().view(1), .01)

    def checkpoint():
        state = {k: v.to(torch.bfloat16) for k, v in optimizer.ema_state().items()}
        sizes = [v.numel() for v in state.values()]
        halves = ({}, {})                            # two files, each under 16 MiB
        for i, (name, value) in enumerate(state.items()):
            halves[sum(sizes[:i]) > sum(sizes) // 2][name] = value
        run.save(halves[0], "dit_a.pt")
        run.save(halves[1], "dit_b.pt")

    step = Stepper(run, gradients, optimizer)
    run.log(captured="dit")
    seconds = options.dit_seconds
    if options.deadline:
        seconds = run.share(torch.tensor([run.start + options.deadline - time.time()],
                                         device=device, dtype=torch.float64)).item()
    clock, iteration, gone, since, saved = Clock(run, seconds), 0, 0.0, time.time(), 0.0
    while True:
        if iteration % 10 == 0:
            gone = clock.read()
            if gone >= 1:
                break
            if iteration % 200 == 0:
                run.share(optimizer.values)
            if gone > saved + .12:
                checkpoint()
                saved = gone
        warm_up, decay = min(1, (iteration + 1) / 300), min(1, (1 - gone) / .7)
        optimizer.lr.fill_(options.dit_lr * warm_up * decay + 1e-6)
        step()
        iteration += 1
        if iteration % 1000 == 0:
            run.log(it=iteration, loss=average.item(), grad=optimizer.grad_norm.item(),
                    its_per_s=1000 / (time.time() - since))
            since = time.time()
    run.sync()
    run.log(dit_iterations=iteration, loss=average.item())
    checkpoint()
    optimizer.use_ema()
    plain = wan_torch.DiT(**wan_torch.DIT_CONFIG).to(device)       # not compiled
    plain.load_state_dict({k: v.detach().to(torch.bfloat16).float()
                           for k, v in dit.state_dict().items()})
    return plain, text_encoder, mean, std


# ---------------------------------------------------------------- pictures and numbers


def evaluate(run, demo):
    """Sample held-out prompts, write contact sheets, run the automatic check."""
    scenes = data.held_out_scenes()
    scenes = scenes[::max(1, len(scenes) // run.options.check_prompts)]
    prompts = [data.caption(scene) for scene in scenes]
    videos = []
    chunk = 4 if run.options.tiny else 32
    for i in range(0, len(prompts), chunk):
        videos += list(demo.decode(demo.native(prompts[i:i + chunk], seed=i)).cpu())
        run.log(sampled=len(videos))
    half = len(videos) // 2
    data.save_sheet(videos[:half], run.path("heldout_1.jpg"), columns=2)
    data.save_sheet(videos[half:], run.path("heldout_2.jpg"), columns=2)
    frames = [check_prompts.frames_from_tensor(video) for video in videos]
    run.log(check=check_prompts.summary(frames, prompts))
    true_videos = []
    for i in range(0, len(scenes), 16):
        true_videos += list(data.render(scenes[i:i + 16], device=run.device)[0].cpu())
    frames = [check_prompts.frames_from_tensor(video) for video in true_videos]
    run.log(check_on_true_clips=check_prompts.summary(frames, prompts))
    free = ["a red ball", "a blue star at night", "a yellow square in the snow",
            "a big green triangle jumping over the sea at sunset", "purple", "",
            "A Giant RED Striped Ball bounces on the grass!", "a white star", "a dog on a bike",
            "a pink ball and a blue square", "under a gray sky, a small orange box is rising",
            "a checkered purple ball rolling to the left, on the beach"]
    videos = demo.decode(demo.native(free, seed=5)).cpu()
    data.save_sheet(list(videos), run.path("free_prompts.jpg"), columns=2)
    pair = ["a big red striped ball bouncing over grass under a blue sky",
            "a big blue checkered square spinning over sand under a sunset sky",
            "a big yellow star rising over water under a night sky",
            "a small green triangle moving right over snow under a grey sky"]
    if run.options.tiny:
        pair = pair[:1]
    native = demo.decode(demo.native(pair, seed=3))
    double = demo.refine(pair, native, strength=.5)
    rows = []
    for i in range(len(pair)):
        enlarged = F.interpolate(wan_torch.frames_from_clips(native[i:i + 1]), scale_factor=2,
                                 mode="bilinear")
        rows += [wan_torch.clips_from_frames(enlarged, data.CLIP_FRAMES)[0].cpu(),
                 double[i].cpu()]
    data.save_sheet(rows, run.path("refine_2x.jpg"), frames=(0, 8, 16))
    run.log(done=1)


def main():
    options = arguments()
    run = Run(options)
    tokenizer = Tokenizer(options.tokenizer)
    if run.cuda:
        wan_torch.compile_pointwise()
    vae = wan_torch.VAE(**wan_torch.VAE_CONFIG)
    wan_torch.init_vae(vae)
    vae = vae.to(run.device)
    if options.load_vae:
        state = torch.load(options.load_vae, map_location=run.device)
        vae.load_state_dict({k: v.float() for k, v in state.items()})
    else:
        train_vae(run, vae)
        vae.load_state_dict({k: v.to(torch.bfloat16).float()      # latents of the shipped weights
                             for k, v in vae.state_dict().items()})
    psnr, object_psnr = vae_psnr(run, vae, run.path("vae_recon.png"))
    run.log(vae_psnr=psnr, vae_object_psnr=object_psnr)
    if options.dit_seconds > 0:
        dit, text_encoder, mean, std = train_dit(run, vae, tokenizer)
        if run.rank == 0:
            evaluate(run, Demo(vae, dit, text_encoder, tokenizer, mean, std, run.dtype))
    if run.world > 1:
        run.sync()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
