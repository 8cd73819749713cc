"""Check an exported model folder against diffusers and transformers (CPU, fp32).

    python verify.py MODEL_FOLDER [PICTURE.png]

1. Our torch modules and the reference classes, both loaded from the folder, compute
   the same.  2. The tokenizer gives the sentencepiece library's own ids.  3. WanPipeline
   loads the folder and renders (a contact sheet, if a picture is named).
"""
import random
import sys

import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from transformers import AutoTokenizer, T5TokenizerFast, UMT5EncoderModel

import data
from sample import Demo
from tokenizer import MAX_TOKENS

STRANGE_PROMPTS = [
    "", " ", "A Red Ball", "a  red   ball ", "  a red ball", "tail ", "red\tball\nover",
    "A big RED striped ball, bouncing over GRASS!", "x" * 100, "a\u2581b", "a \u2581 b",
    "\u2026", "\ufb01ne \u00bd \u2460", "caf\u00e9 na\u00efve \uff21\uff22\uff23", "\u0130stanbul",
    "\u4e00\u4e2a\u7ea2\u8272\u7684\u7403", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u00df STRASSE",
    "a red ball \U0001f388 under \U0001f319", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "a\u200bb",
    "\u3000wide space\u3000", "\u00a0no break\u00a0x", "baloon sqaure trianlge",
]


def relative(ours, reference):
    return ((ours - reference).norm() / reference.norm()).item()


@torch.no_grad()
def check_modules(folder, demo):
    torch.manual_seed(0)
    vae = AutoencoderKLWan.from_pretrained(folder, subfolder="vae")
    video = data.render(data.held_out_scenes()[:1], width=96, height=64)[0] * 2 - 1
    ours, logvar = demo.vae.encode(video)
    theirs = vae.encode(video).latent_dist
    print("VAE encoder   mean %.1e, log variance %.1e" % (relative(ours, theirs.mean),
                                                          relative(logvar, theirs.logvar)))
    print("VAE decoder   %.1e" % relative(demo.vae.decode(ours).clamp(-1, 1),
                                          vae.decode(ours).sample))
    text_encoder = UMT5EncoderModel.from_pretrained(folder, subfolder="text_encoder").float()
    prompts = ["a big red striped ball bouncing over grass under a blue sky", "a star", ""]
    ids = torch.from_numpy(demo.tokenizer(prompts))
    mask = (ids != 0).long()
    hidden = text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    text = demo.text_encoder(ids)
    print("text encoder  %.1e" % relative(text, hidden))
    dit = WanTransformer3DModel.from_pretrained(folder, subfolder="transformer").float()
    x, time = torch.randn(3, 16, 5, 12, 20), torch.tensor([975.0, 500.0, 30.5])
    reference = dit(hidden_states=x, timestep=time, encoder_hidden_states=text,
                    return_dict=False)[0]
    print("DiT           %.1e" % relative(demo.dit(x, time, text), reference))


def check_tokenizer(folder, demo):
    rng = random.Random(3)
    prompts = [data.caption(scene, rng) for scene in data.sample_scenes(5000, rng)]
    prompts += STRANGE_PROMPTS
    expected = demo.tokenizer(prompts).tolist()
    for loader in (AutoTokenizer, T5TokenizerFast):
        tokenizer = loader.from_pretrained(folder, subfolder="tokenizer")
        got = tokenizer(prompts, padding="max_length", max_length=MAX_TOKENS,
                        truncation=True).input_ids
        same = sum(a == b for a, b in zip(expected, got))
        unknown = sum(2 in row for row in got)
        print(f"{loader.__name__} ({type(tokenizer).__name__}): {same} of {len(prompts)} prompts "
              f"have sentencepiece's ids; {unknown} contain <unk>")


def check_pipeline(folder, picture):
    pipeline = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts = ["a big red striped ball bouncing over grass under a blue sky",
               "a small yellow star rising over water under a night sky",
               "a red ball"]
    videos = []
    for prompt in prompts:
        video = pipeline(prompt=prompt, negative_prompt="", width=160, height=96, num_frames=17,
                         num_inference_steps=20, guidance_scale=3.0, max_sequence_length=32,
                         generator=torch.Generator().manual_seed(0), output_type="pt").frames[0]
        videos.append(video.permute(1, 0, 2, 3))
        print("WanPipeline", list(video.shape), prompt)
    if picture:
        data.save_sheet(videos, picture)


if __name__ == "__main__":
    folder = sys.argv[1]
    demo = Demo.load(folder)
    check_modules(folder, demo)
    check_tokenizer(folder, demo)
    check_pipeline(folder, sys.argv[2] if len(sys.argv) > 2 else None)
