#!/usr/bin/env python3
"""Hostile files: makes them, gives each to `kinora` from outside, and asserts what comes of it.

    tools/hostile.py KINORA [--tree DIR] [--markdown FILE] [--only TEXT]

Every case must end with the exit code and the message it names, without a signal, within its limits of memory and
time, and must leave no file under a final name. --markdown writes the table of docs/hostile.md.
"""
import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib

MIB = 1 << 20
CASES = []


def case(group, name, code, text, args, make=None, mib=256, seconds=20, clean=None):
    """make(): writes the files. text: a regular expression for the message. clean: a regular expression that must
    not be in the output."""
    CASES.append(dict(group=group, name=name, code=code, text=text, args=args, make=make, mib=mib, seconds=seconds, clean=clean))


def put(path, data):
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def sparse(path, size, data=b""):
    put(path, data)
    os.truncate(path, size)


# ---- safetensors --------------------------------------------------------------------------------

def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def weights(name, text, data, code=3, **more):
    case("safetensors", name, code, text, ["info", "x.safetensors"], lambda: put("x.safetensors", data() if callable(data) else data), **more)


weights("empty file", "at least 8 bytes", b"")
weights("seven bytes", "at least 8 bytes", b"1234567")
weights("header length of 2^64 - 1", "found a length of 18446744073709551615", b"\xff" * 8 + b"{}")
weights("header longer than the file", "ends outside the file", struct.pack("<Q", 5000) + b"{}")
weights("header over 100 MiB", "found a length of 104857601", struct.pack("<Q", (100 << 20) + 1) + b"{}")
weights("header is an array", "begin with '{'", safetensors(b"[1,2]"))
weights("header cut in the midst", "line 1", safetensors(b'{"a": {"dtype": "F3'))
weights("100,000 open brackets", "nested deeper", safetensors(b'{"a":' + b"[" * 100000))
weights("2 million values", "more than 1048576 values", lambda: safetensors(b'{"a":[' + b"1," * 2000000 + b"1]}"))
weights("a name twice", "duplicate", safetensors(b'{"a":' + json.dumps(tensor([1], 0, 4)).encode() + b',"a":1}', b"1234"))
weights("tensors that overlap", "overlaps", safetensors({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)))
weights("bytes that no tensor owns", "gap before it", safetensors({"a": tensor([1], 4, 8)}, bytes(8)))
weights("bytes after the last tensor", "bytes after the last", safetensors({"a": tensor([1], 0, 4)}, bytes(100)))
weights("dim below 0", "0 or more, found -4", safetensors({"a": tensor([-4], 0, 4)}, bytes(4)))
weights("dims whose product overflows", "below 2\\^60", safetensors({"a": tensor([1 << 40, 1 << 40], 0, 4)}, bytes(4)))
weights("dims whose product is right modulo 2^64", "below 2\\^60", safetensors({"a": tensor([1 << 62, 4, 1], 0, 0)}))
weights("rank 7", "at most 6 dims", safetensors({"a": tensor([1] * 7, 0, 4)}, bytes(4)))
weights("unknown dtype", "F128", safetensors({"a": tensor([1], 0, 4, "F128")}, bytes(4)))
weights("end before begin", "0 <= begin <= end", safetensors({"a": tensor([1], 8, 4)}, bytes(8)))
weights("offset of 2^62", "outside the file", safetensors({"a": tensor([1], 0, 1 << 62)}, bytes(4)))
weights("offset beyond 64 bits", "too big integer", safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,99999999999999999999]}}', bytes(4)))
weights("zero byte in a name", "\\\\u0000", safetensors(b'{"a\\u0000b":' + json.dumps(tensor([1], 0, 4)).encode() + b"}", bytes(4)))
weights("header that is not UTF-8", "unable to decode", safetensors(b'{"\xff\xfe":1}'))
weights("metadata that is a number", "expected a string", safetensors({"__metadata__": {"a": 1}}))
weights("escape codes in a tensor's name (printed without them)", "\\?\\]0;owned\\?", safetensors({"\x1b]0;owned\x07": tensor([1], 0, 4)}, bytes(4)),
        code=0, clean="[\x1b\x07]")
weights("a Git LFS pointer", "Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
case("safetensors", "64 GiB of zeros (sparse)", 3, "found a length of 0", ["info", "x.safetensors"], lambda: sparse("x.safetensors", 64 << 30))
case("safetensors", "a named pipe", 3, "regular file", ["info", "x.safetensors"], lambda: os.mkfifo("x.safetensors"))
case("safetensors", "a link to /dev/zero", 3, "regular file", ["info", "x.safetensors"], lambda: os.symlink("/dev/zero", "x.safetensors"))


# ---- model folders ------------------------------------------------------------------------------

def model(change=None, part=None):
    """A copy of the demo model by links, with `part` copied for real, then changed."""
    os.makedirs("m")
    for name in os.listdir(TREE + "/demo/model"):
        source = TREE + "/demo/model/" + name
        if name == part:
            shutil.copytree(source, "m/" + name) if os.path.isdir(source) else shutil.copy(source, "m/" + name)
        else:
            os.symlink(source, "m/" + name)
    if part and os.path.isdir("m/" + part):
        for name in os.listdir("m/" + part):
            os.chmod("m/" + part + "/" + name, 0o644)
    if change:
        change()


def index(weight_map):
    def change():
        os.rename("m/transformer/diffusion_pytorch_model.safetensors", "m/transformer/a-1-of-1.safetensors")
        put("m/transformer/diffusion_pytorch_model.safetensors.index.json", json.dumps({"weight_map": weight_map}))
    return lambda: model(change, "transformer")


def config(part, **changes):
    def change():
        path = f"m/{part}/config.json"
        with open(path) as f:
            values = json.load(f)
        values.update(changes)
        put(path, json.dumps(values))
    return lambda: model(change, part)


def replaced(part, name, data):
    return lambda: model(lambda: put(f"m/{part}/{name}", data), part)


RENDER = ["render", "-m", "m", "-p", "a red ball", "--seed", "1", "--frames", "1", "--size", "64x64", "--steps", "1", "-o", "x.mp4"]
EMBED = ["render", "-m", "m", "-p", "a red ball", "--seed", "1", "--embeds-out", "x.safetensors"]
PLAN = ["plan", "-m", "m", "-p", "x", "-o", "x.mp4"]
case("model", "index with ../", 3, "in the same folder", ["info", "m"], index({"a": "../a.safetensors"}))
case("model", "index with an absolute path", 3, "in the same folder", ["info", "m"], index({"a": "/etc/a.safetensors"}))
case("model", "index of a shard that is not there", 3, "names a shard", ["info", "m"], index({"a": "b.safetensors"}))
case("model", "index of a tensor that is not there", 3, "in no shard", ["info", "m"], index({"no.such.tensor": "a-1-of-1.safetensors"}))
case("model", "index that is a list", 3, "expected an object", ["info", "m"], index([]))
case("model", "config.json of 2 billion layers", 3, "num_layers.*from 1 to 1024", PLAN, config("transformer", num_layers=2000000000))
case("model", "config.json of -1 heads", 3, "num_attention_heads", PLAN, config("transformer", num_attention_heads=-1))
case("model", "config.json of the largest widths allowed, over small weights", 3, "expected shape", PLAN,
     config("transformer", num_layers=1024, num_attention_heads=1024, attention_head_dim=1024, ffn_dim=1 << 20))
case("model", "config.json of more layers than there are weights", 3, "blocks\\.8\\.", RENDER, config("transformer", num_layers=9))
case("model", "config.json of patches of 0", 3, "patch_size", PLAN, config("transformer", patch_size=[0, 2, 2]))
case("model", "config.json cut", 3, "config.json", PLAN, replaced("transformer", "config.json", '{"num_layers": '))
case("model", "config.json of 17 MiB", 3, "at most", PLAN, replaced("transformer", "config.json", " " * (17 << 20)))
case("model", "config.json of 1,000 levels", 3, "nested deeper", PLAN, replaced("transformer", "config.json", '{"a":' * 1000 + "1" + "}" * 1000))
case("model", "config.json that is a pipe", 3, "regular file", PLAN,
     lambda: model(lambda: (os.unlink("m/transformer/config.json"), os.mkfifo("m/transformer/config.json")), "transformer"))
case("model", "weights cut to a third", 3, "ends outside the file", RENDER,
     lambda: model(lambda: os.truncate("m/transformer/diffusion_pytorch_model.safetensors", 4000000), "transformer"))
case("model", "weights of another network", 3, "transformer", RENDER,
     lambda: model(lambda: shutil.copy(TREE + "/demo/model/vae/diffusion_pytorch_model.safetensors", "m/transformer/"), "transformer"))
case("model", "spiece.model of random bytes", 3, "spiece.model", EMBED, replaced("tokenizer", "spiece.model", bytes((i * 7919 >> 3) & 255 for i in range(5000))))
case("model", "spiece.model of a piece of 2^63 bytes", 3, "spiece.model", EMBED, replaced("tokenizer", "spiece.model", b"\x0a" + b"\xff" * 8 + b"\x7f"))
case("model", "tokenizer.json cut", 3, "tokenizer.json", EMBED, replaced("tokenizer", "tokenizer.json", '{"added_tokens": ['))
case("model", "kinora.json that names an output", 3, "not a property of a model", PLAN, lambda: model(lambda: put("m/kinora.json", '{"output": "/etc/x"}'), "kinora.json"))
case("model", "kinora.json of -1 steps", 3, "from 1 to 1000", PLAN, lambda: model(lambda: put("m/kinora.json", '{"steps": -1}'), "kinora.json"))
case("model", "scheduler whose shift is text", 3, "number from 0.01", PLAN, replaced("scheduler", "scheduler_config.json", '{"flow_shift": "nan"}'))
case("model", "VAE whose std is 0", 3, "latents_std", RENDER, config("vae", latents_std=[0.0] * 16))
case("model", "pickled weights", 5, "pickle", PLAN, lambda: put("m/Wan2.1_VAE.pth", b"\x80\x02cos\nsystem\n(S'touch owned'\ntR."))
case("model", "a folder of 2,000 weight files", 3, "files", PLAN,
     lambda: model(lambda: [put(f"m/vae/{i}.safetensors", "") for i in range(2000)], "vae"))


# ---- pictures and videos ------------------------------------------------------------------------

def chunk(kind, data, crc=None):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) & 0xffffffff if crc is None else crc)


def png(width, height, rows=None, extra=b"", colour=2, interlace=0, crc=None):
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlace)
    data = zlib.compress(rows if rows is not None else (b"\0" + bytes(3 * width)) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data, crc) + chunk(b"IEND", b"")


def picture(name, text, data, code=3, **more):
    case("PNG", name, code, text, ["refine", "x.png", "-m", TREE_MODEL, "-o", "out.mp4"], lambda: put("x.png", data() if callable(data) else data), **more)


TREE_MODEL = "{model}"
picture("another kind of file", "expected a PNG", b"GIF89a" + bytes(50))
picture("cut in the pixels", "truncated|libpng", png(64, 64)[:-30])
picture("a wrong checksum", "libpng", png(64, 64, crc=1))
picture("4 billion pixels a side", "16384 x 16384 px", png(0xffffffff, 0xffffffff, b""))
picture("16384 x 16384 px in 70 bytes", "134217728 pixels", png(16384, 16384, b""))
picture("8192 x 8192 px in 70 bytes", "truncated", png(8192, 8192, b""))
picture("decompresses to too little", "libpng", png(64, 64, b"\0" * 100))
picture("a decompression bomb of 192 MiB (refused by the size of its result)", "refine-size|16384", lambda: png(16384, 4096, bytes((3 * 16384 + 1) * 4096)), code=2, mib=1536, seconds=60)
picture("width 0", "libpng", png(0, 64, b""))
picture("palette without PLTE", "libpng", png(64, 64, bytes(65 * 64), colour=3))
picture("unknown critical chunk", "libpng", png(64, 64, extra=chunk(b"KNRA", b"x")))
picture("text that decompresses to 64 MiB (passed over)", "4n\\+1|refine|wrote|fewer|libpng|expected", png(64, 64, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 << 20)))),
        code=0, mib=512, seconds=60)
case("PNG", "folder of pictures of two sizes", 3, "like the first", ["refine", "f", "-m", TREE_MODEL, "-o", "out.mp4"],
     lambda: [put(f"f/{i}.png", png(64 if i < 4 else 32, 64)) for i in range(5)], mib=512, seconds=60)


def video(name, text, data, code=3, file="x.mp4", **more):
    case("video", name, code, text, ["refine", file, "-m", TREE_MODEL, "-o", "out.mp4"], lambda: put(file, data() if callable(data) else data), **more)


def y4m(head, frame=b""):
    return b"YUV4MPEG2 " + head + b"\n" + frame


video("empty file", "cannot open", b"")
video("random bytes", "cannot open|stream", bytes((i * i >> 3) & 255 for i in range(40000)))
video("a playlist that names /etc/passwd", "cannot open", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
video("a concat script", "cannot open", "ffconcat version 1.0\nfile /etc/passwd\n")
video("an SDP that opens a port", "cannot open", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n")
video("frames of 0 pixels", "cannot open|stream|pixels|reading", y4m(b"W0 H0 F25:1 C420"), file="x.y4m")
video("frames of 100,000 x 100,000", "pixels|cannot open|reading", y4m(b"W100000 H100000 F25:1 C420", b"FRAME\n" + bytes(1000)), file="x.y4m")
video("frames of 16384 x 8192 with no data", "frame|damaged|expected|reading", y4m(b"W16384 H8192 F25:1 C420", b"FRAME\n"), file="x.y4m", mib=1024, seconds=60)
video("pixels 1000000:1 wide", "16384|refine-size", y4m(b"W64 H64 F25:1 A1000000:1 C420", (b"FRAME\n" + bytes(64 * 96)) * 5), code=2, file="x.y4m")
video("GIF of 65535 x 65535", "cannot open|pixels|no frame|expected|reading", b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b"\x3b", file="x.gif")
video("WebP of 16383 x 8192 px in 60 bytes", "33554432 pixels", b"RIFF" + struct.pack("<I", 44) + b"WEBPVP8 " + struct.pack("<I", 30) + b"\x10\x00\x00\x9d\x01\x2a\xff\x3f\x00\x20" + bytes(20),
      file="x.webp", mib=1024, seconds=60)
video("WebP whose chunk is longer than the file", "x.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8X\xff\xff\xff\x7f" + bytes(10), file="x.webp")
case("video", "a named pipe", 3, "regular file", ["refine", "x.mp4", "-m", TREE_MODEL, "-o", "out.mp4"], lambda: os.mkfifo("x.mp4"))
case("video", "a link to /dev/zero", 3, "regular file", ["info", "x.mp4"], lambda: os.symlink("/dev/zero", "x.mp4"))
case("video", "an empty folder as a clip", 3, "png", ["refine", "f", "-m", TREE_MODEL, "-o", "out.mp4"], lambda: os.mkdir("f"))


# ---- presets, config files ----------------------------------------------------------------------

def conf(name, text, data, code=3, file="c.yaml", **more):
    case("config", name, code, text, ["plan", "-m", TREE_MODEL, "-p", "x", "-o", "x.mp4", "--config", file], lambda: put(file, data), **more)


def preset(name, text, data, code=2, **more):
    case("preset", name, code, text, ["plan", "-m", TREE_MODEL, "-p", "x", "--preset", "p"], lambda: put("home/kinora/presets/p.yaml", data), **more)


conf("aliases that multiply (billion laughs)", "anchor", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join('*' + chr(ord(c) - 1) for _ in range(9))}]\n" for c in "bcdefghi"))
conf("a tag that makes objects elsewhere", "tag", "steps: !!python/object/apply:os.system [touch owned]\n")
conf("10,000 levels of lists", "nested deeper|exceeded maximum|line|c.yaml", "a: " + "[" * 10000)
conf("1,000,001 keys", "more than", "".join(f"k{i}: 1\n" for i in range(1000001)), mib=512)
conf("17 MiB", "at most", "#" * (17 << 20))
conf("a zero byte", "c.yaml", b"steps: 3\0\n")
conf("not UTF-8", "c.yaml", b"prompt: \xff\xfe\n")
conf("a key twice", "expected once", "steps: 3\nsteps: 4\n")
conf("two documents", "one document", "steps: 3\n---\nsteps: 4\n")
conf("a list where a value is expected", "one value", "steps: [1, 2]\n", code=2)
conf("an output elsewhere", "below the current folder", "output: /etc/cron.d/x.mp4\n", code=2)
conf("an output with ../", "below the current folder", "frames-dir: a/../../b\n", code=2)
conf("overwrite", "only be given on the command line", "overwrite: true\n", code=2)
conf("JSON of 1,000 levels", "nested deeper", '{"a":' * 1000, file="c.json")
preset("extends a path", "unknown preset", "extends: ../../../etc/x\n")
preset("extends itself in a circle", "circle|unknown preset", "extends: p\n")
preset("an output elsewhere", "below the current folder", "output: ../x.mp4\n")
preset("steps of 10^30", "whole number", "steps: 1000000000000000000000000000000\n")
case("preset", "two that extend each other", 2, "circle", ["plan", "-m", TREE_MODEL, "-p", "x", "--preset", "p"],
     lambda: (put("home/kinora/presets/p.yaml", "extends: q\n"), put("home/kinora/presets/q.yaml", "extends: p\n")))


# ---- batches ------------------------------------------------------------------------------------

def batch(name, text, data, code=2, file="b.yaml", more=(), make=None, **limits):
    case("batch", name, code, text, ["batch", file, "--model", TREE_MODEL, *more], lambda: (put(file, data), make and make()), **limits)


batch("an output elsewhere", "in the output folder", "jobs: [{prompt: a, output: /tmp/x.mp4}]\n", code=1)
batch("an output with ../", "in the output folder", "jobs: [{prompt: a, output: ../x.mp4}]\n", code=1)
batch("../ by a placeholder", "in the output folder", 'jobs: [{prompt: a, name: "..", output: "{name}/x.mp4"}]\n', code=1)
batch("an output through a link", "found a link", "jobs: [{prompt: a, seed: 1, steps: 1, frames: 1, output: l/x.mp4}]\n", code=1,
      make=lambda: (os.makedirs("b"), os.makedirs("away"), os.symlink("../away", "b/l")), mib=512, seconds=60)
batch("a lock that is a link", "b/x.mp4.lock|link|levels", "jobs: [{prompt: a, seed: 1, steps: 1, frames: 1, output: x.mp4}]\n", code=1,
      make=lambda: (os.makedirs("b"), put("victim", "precious"), os.symlink("../victim", "b/x.mp4.lock")), mib=512, seconds=60)
batch("16,385 jobs", "more than 16384 jobs", "jobs: [{prompt: a, matrix: {seed: 0..16384}}]\n", mib=512, seconds=60)
batch("16,000 jobs of one name (planned one by one up to the first that is wrong)", "both write", "jobs: [{prompt: a, name: n, output: x.mp4, matrix: {seed: 1..16000}}]\n", mib=512, seconds=60)
batch("a matrix of 10^12", "more than 16384 jobs", "jobs: [{prompt: a, matrix: {seed: 0..9999, steps: 1..1000, guidance: [1,2,3], fps: 1..240}}]\n", mib=512, seconds=60)
batch("prompts elsewhere", "batch file's folder", "jobs: [{prompts: ../../etc/passwd}]\n")
batch("a table elsewhere", "batch file's folder", "jobs: [{csv: /etc/passwd}]\n")
batch("prompts with zero bytes", "UTF-8", "jobs: [{prompts: p.txt}]\n", make=lambda: put("p.txt", b"a\0b\n"))
batch("prompts that are a pipe", "regular file", "jobs: [{prompts: p.txt}]\n", make=lambda: os.mkfifo("p.txt"))
batch("prompts of 17 MiB", "at most", "jobs: [{prompts: p.txt}]\n", make=lambda: put("p.txt", "a\n" * (9 << 20)))
batch("a table whose quote is not closed", "not closed", 'prompt\n"a\n', file="b.csv")
batch("a table of 200 columns", "more than 128 fields", ",".join(["seed"] * 200) + "\n", file="b.csv")
batch("a table of 70,000 rows", "more than", "seed\n" + "1\n" * 70000, file="b.csv", mib=512, seconds=60)
batch("placeholders without an end", "expected a }", 'jobs: [{prompt: a, output: "{name"}]\n', code=1)
batch("results.jsonl of random bytes (passed over)", "jobs to do|1 ", "jobs: [{prompt: a, seed: 1}]\n", code=0, more=["--dry-run"],
      make=lambda: put("b/results.jsonl", bytes(range(256)) * 200), mib=512, seconds=60)


# ---- what Kinora wrote before -------------------------------------------------------------------

def again(name, text, data, code=3, file="x.json", **more):
    case("--from", name, code, text, ["plan", "-o", "x.mp4", "--from", file], lambda: put(file, data), **more)


again("no settings", "no settings in it", "{}")
again("1,000 levels", "no settings in it", "[" * 1000)
again("options that are a list", "no settings in it", '{"kinora": "0", "options": []}')
again("steps of -4", "from 1 to 1000", '{"kinora": "0", "options": {"steps": -4}}', code=2)
again("2 MiB", "at most", " " * (2 << 20))
again("PNG text of 2 GiB", "no settings in it", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0x7fffffff) + b"tEXtkinora\0", file="x.png")
case("--from", "escape codes in settings (printed without them)", 0, "red", ["info", "x.json"],
     lambda: put("x.json", json.dumps({"kinora": "\x1b[2J", "options": {"prompt": "\x1b[31mred\x07"}})), clean="[\x1b\x07]")


def resumed(name, text, data, code=3):
    case("checkpoint", name, code, text, RENDER + ["--resume"], lambda: (model(), put("x.mp4.checkpoint.safetensors", data)), mib=512)


META = {"job": "0123456789abcdef", "segment": "0", "pass": "0", "step": "1", "known": "0", "order": "0", "seed": "1", "options": "{}"}
resumed("random bytes", "checkpoint", bytes(range(256)))
resumed("cut", "outside the file", safetensors({"latents": tensor([16, 1, 8, 8], 0, 4096)}, bytes(100)))
resumed("of another job", "another job", safetensors({"__metadata__": META, "latents": tensor([16, 1, 8, 8], 0, 4096)}, bytes(4096)), code=2)
resumed("step that is text", "whole number", safetensors({"__metadata__": dict(META, step="two"), "latents": tensor([1], 0, 4)}, bytes(4)))
resumed("pass of 10^18", "another job", safetensors({"__metadata__": dict(META, **{"pass": "1000000000000000000"}), "latents": tensor([1], 0, 4)}, bytes(4)), code=2)
case("latents", "of another shape", 3, "expected", RENDER + ["--latents-in", "l.safetensors"],
     lambda: (model(), put("l.safetensors", safetensors({"latents": tensor([1, 1, 8, 8], 0, 256)}, bytes(256)))), mib=512)
case("latents", "of NaN", 6, "NaN|finite", RENDER + ["--latents-in", "l.safetensors"],
     lambda: (model(), put("l.safetensors", safetensors({"latents": tensor([16, 1, 8, 8], 0, 4096)}, struct.pack("<f", float("nan")) * 1024))), mib=512, seconds=60)

# ---- prompts and numbers ------------------------------------------------------------------------

case("prompt", "a prompt file that is not UTF-8", 2, "0xff", ["plan", "-m", TREE_MODEL, "-o", "x.mp4", "--prompt-file", "p"], lambda: put("p", b"a \xff b"))
case("prompt", "a prompt file of 2 MiB", 3, "at most", ["plan", "-m", TREE_MODEL, "-o", "x.mp4", "--prompt-file", "p"], lambda: put("p", "a " * (1 << 20)))
case("prompt", "a prompt file with a zero byte", 2, "zero byte", ["plan", "-m", TREE_MODEL, "-o", "x.mp4", "--prompt-file", "p"], lambda: put("p", b"a\0b"))
case("prompt", "100,000 nested entities", 0, "tokens", ["plan", "-m", TREE_MODEL, "-o", "x.mp4", "--prompt-file", "p"], lambda: put("p", "&amp;" * 100000), mib=512, seconds=60)
case("numbers", "16384 x 8192 px, 257 frames: does not fit", 4, "needs? .* GiB( for .*)?, the budget|besides the weights", ["render", "-m", TREE_MODEL, "-p", "x", "-o", "x.mp4", "--size", "16384x8192", "--frames", "257"], mib=512, seconds=60)
case("numbers", "a size of 10^19", 2, "WIDTHxHEIGHT|whole number", ["plan", "-m", TREE_MODEL, "-p", "x", "-o", "x.mp4", "--size", "9999999999999999999x16"])
case("numbers", "a size that wraps at 2^32", 2, "WIDTHxHEIGHT|from 16", ["plan", "-m", TREE_MODEL, "-p", "x", "-o", "x.mp4", "--width", "4294967312"])
case("numbers", "a refine size beyond bounds", 2, "16384", ["plan", "-m", TREE_MODEL, "-p", "x", "-o", "x.mp4", "--refine-size", "64x,9999999x"])


# ---- running ------------------------------------------------------------------------------------

def listing(folder):
    return {os.path.relpath(os.path.join(d, n), folder) for d, _, names in os.walk(folder) for n in names}


def run(c, kinora):
    before = listing(".")
    args = [a.replace(TREE_MODEL, TREE + "/demo/model") for a in c["args"]]
    env = dict(os.environ, XDG_CONFIG_HOME=os.getcwd() + "/home", LC_ALL="C.UTF-8")
    start = time.monotonic()
    with open(".out", "wb") as out:
        p = subprocess.Popen([kinora, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        while True:
            pid, status, usage = os.wait4(p.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - start > 4 * c["seconds"]:
                p.kill()
                os.wait4(p.pid, 0)
                p.returncode = -9
                return dict(error="did not end", code="-", text="", mib=0, sec=0)
            time.sleep(0.005)
    p.returncode = status  # taken by wait4
    code = os.waitstatus_to_exitcode(status)
    output = open(".out", errors="replace").read()
    os.unlink(".out")
    left = {n for n in listing(".") - before if not n.endswith((".lock", "results.jsonl"))}
    mib, sec = usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime
    error = ""
    if code != c["code"]:
        error = f"exit code {code}, expected {c['code']}"
    elif not re.search(c["text"], output):
        error = f"message without '{c['text']}'"
    elif c["clean"] and re.search(c["clean"], output):
        error = "control characters in the output"
    elif mib > c["mib"] * FACTOR:
        error = f"{mib:.0f} MiB, allowed {c['mib'] * FACTOR}"
    elif sec > c["seconds"] * FACTOR:
        error = f"{sec:.1f} s of CPU time, allowed {c['seconds'] * FACTOR}"
    elif code != 0 and left:
        error = f"left {sorted(left)}"
    elif os.path.exists("victim") and open("victim").read() != "precious":
        error = "a file behind a link was written"
    elif os.path.exists("owned"):
        error = "a command was run"
    wanted = [line for line in output.strip().split("\n") if re.search(c["text"], line)] or [output.strip().split("\n")[-1]]
    return dict(error=error, code=code, text=wanted[0], mib=mib, sec=sec, output=output)


def main():
    global TREE, FACTOR
    parser = argparse.ArgumentParser()
    parser.add_argument("kinora")
    parser.add_argument("--tree", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser.add_argument("--markdown")
    parser.add_argument("--only", default="")
    parser.add_argument("--sanitizer", action="store_true", help="the program is built with sanitizers: limits are 8 times as wide")
    o = parser.parse_args()
    TREE, FACTOR = os.path.abspath(o.tree), 8 if o.sanitizer else 1
    kinora = os.path.abspath(o.kinora)
    markdown = os.path.abspath(o.markdown) if o.markdown else None
    failed, rows = 0, []
    for c in CASES:
        if o.only and o.only not in f"{c['group']}: {c['name']}":
            continue
        with tempfile.TemporaryDirectory() as work:
            os.chdir(work)
            if c["make"]:
                c["make"]()
            r = run(c, kinora)
            os.chdir("/")
        text = r["text"].replace(work + "/", "").replace(TREE + "/", "")
        rows.append((c["group"], c["name"], r["code"], text, r["mib"], r["sec"]))
        print(f"{'FAILED' if r['error'] else 'ok':6} {c['group']}: {c['name']}: {r['error'] or text[:120]}", flush=True)
        if r["error"]:
            failed += 1
            print("       " + r.get("output", "")[-600:].replace("\n", "\n       "))
    print(f"{len(rows)} cases, {failed} failed; most memory {max(r[4] for r in rows):.0f} MiB, most CPU time {max(r[5] for r in rows):.2f} s")
    if markdown:
        with open(markdown, "w") as f:
            f.write(HEAD.format(count=len(rows)))
            for g, n, code, text, mib, sec in rows:
                text = text.replace("|", "\\|").replace("`", "'")
                text = text if len(text) <= 230 else text[:227] + "..."
                f.write(f"| {g} | {n} | {code} | `{text}` | {mib:.0f} | {sec:.2f} |\n")
    return 1 if failed else 0


HEAD = """# Hostile files

{count} files and settings that somebody might hand to Kinora, with what came of each: `tools/hostile.py` makes them, runs the program from outside, and
fails when exit code or message differ, a signal ends the run, memory or time pass the case's limit, a file is left under a final name, a control
character reaches the output, or a link is followed out of its folder. `ctest -R e2e_hostile` runs it. What bounds what is in [limits.md](limits.md).

Exit codes: 0 taken (with what is hostile about it left out), 1 some jobs of a batch failed, 2 usage, 3 file or model, 4 memory, 5 not supported, 6 NaN.
Memory is the peak of the process (some 40 MiB are the program and its libraries), time is CPU time.

| what | case | exit | message | MiB | s |
| --- | --- | --- | --- | --- | --- |
"""

if __name__ == "__main__":
    sys.exit(main())
