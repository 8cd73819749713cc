#!/usr/bin/env python3
"""Golden data for tests/golden/text_tokenizer.c: what transformers' tokenizer makes of prompts.

    golden_text_tokenizer.py OUT_DIR [--model FOLDER]

Without --model two small sentencepiece models are trained and written with their tokenizer.json:
    OUT_DIR/tokenizer_umt5   laid out as google/umt5-xxl: <pad> </s> <s> <unk>, [eod] ..., bytes,
                             pieces, 300 <extra_id_n>; identity normaliser; no byte fallback
    OUT_DIR/tokenizer_map    with a (small) character map, trimming and byte fallback
and OUT_DIR/text_tokenizer.safetensors gets, for each model M:
    M/prompt/<n>   uint8: the prompt;  M/ids/<n>  int32: its ids at max_length 512
    M/cut/<n>/<k>  int32: its ids at max_length k
With --model FOLDER (a real tokenizer folder) the same file is written for that folder, named "model".
"""
import argparse
import base64
import io
import json
import os
import pydoc_data.topics as topics
import random
import unicodedata

import numpy as np
import sentencepiece as spm
import tokenizers
import torch
import transformers
from safetensors.numpy import save_file
from sentencepiece import sentencepiece_model_pb2 as pb

BLANK = "\u2581"
USER_DEFINED = ["[eod]", "[web]", "[wiki]", "[translate]", "[convo]", "[code]"]
SCENES = """
A red fox walks slowly through fresh snow, cinematic light, shallow depth of field.
Two anthropomorphic cats in comfy boxing gear fight intensely on a spotlighted stage.
A stylish woman walks down a Tokyo street filled with warm glowing neon and animated city signage.
Drone shot of waves crashing against rugged cliffs at sunset, golden light, 4K, 24 fps.
Macro shot of a bee landing on a lavender flower, soft bokeh, gentle wind.
The camera pans left across a foggy harbour; a small wooden boat drifts between the piers.
An astronaut rides a white horse on the moon, dust rising behind them, earth in the black sky.
Time-lapse of clouds rolling over a mountain valley with a river and a stone bridge.
A chef slices vegetables very fast in a busy kitchen, steam, close-up of the hands.
Low quality, blurry, static, overexposed, jpeg artifacts, extra fingers, worst quality.
Ein roter Fuchs läuft langsam durch frischen Schnee. Une tasse de café fumante près de la fenêtre.
Лиса идёт по снегу вечером. Una niña corre por la playa con su perro al atardecer.
一只红色的狐狸慢慢走过雪地，电影般的光线，浅景深。两只拟人化的猫在聚光灯下的舞台上激烈地拳击。
色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，丑陋的，残缺的。
夕阳下海浪拍打着悬崖，无人机镜头。一个女孩在东京的街道上走，霓虹灯闪烁。山谷里的云在流动。
夕焼けの海辺を歩く少女と犬、映画のような光。 눈 덮인 숲을 천천히 걷는 붉은 여우.
""".strip().splitlines()


def training_text():
    rng = random.Random(7)
    words = " ".join(SCENES).split()
    lines = SCENES * 12
    for topic in sorted(topics.topics)[:40]:
        lines += [line.strip()[:300] for line in topics.topics[topic].splitlines() if line.strip()]
    for _ in range(300):
        lines.append(" ".join(rng.choice(words) for _ in range(12)))
    return lines


def train(vocab_size, **options):
    buffer = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(training_text()), model_writer=buffer, model_type="unigram",
        vocab_size=vocab_size, byte_fallback=True, character_coverage=0.9995, num_threads=1,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", minloglevel=2,
        hard_vocab_limit=False, **options)
    proto = pb.ModelProto.FromString(buffer.getvalue())
    for field in ("input", "model_prefix"):
        proto.trainer_spec.ClearField(field)
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    return proto


def special(i, text):
    return dict(id=i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False,
                special=True)


def tokenizer_json(proto, extra_ids, normalizers, byte_fallback):
    vocab = [[p.piece, p.score] for p in proto.pieces]
    added = [special(i, proto.pieces[i].piece) for i in range(4)]
    for n in range(extra_ids - 1, -1, -1):
        added.append(special(len(vocab), f"<extra_id_{n}>"))
        vocab.append([f"<extra_id_{n}>", 0.0])
    meta = dict(type="Metaspace", replacement=BLANK, prepend_scheme="always", split=True)
    a, b, end = (dict(Sequence=dict(id="A", type_id=0)), dict(Sequence=dict(id="B", type_id=0)),
                 dict(SpecialToken=dict(id="</s>", type_id=0)))
    return dict(version="1.0", truncation=None, padding=None, added_tokens=added,
                normalizer=dict(type="Sequence", normalizers=normalizers), pre_tokenizer=meta,
                post_processor=dict(type="TemplateProcessing", single=[a, end],
                                    pair=[a, end, b, end],
                                    special_tokens={"</s>": dict(id="</s>", ids=[1],
                                                                 tokens=["</s>"])}),
                decoder=meta,
                model=dict(type="Unigram", unk_id=3, vocab=vocab, byte_fallback=byte_fallback))


def write_folder(folder, proto, data):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "spiece.model"), "wb") as f:
        f.write(proto.SerializeToString(deterministic=True))
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


COLLAPSE = dict(type="Replace", pattern=dict(Regex=" {2,}"), content=" ")


def make_umt5(folder):
    proto = train(1700, normalization_rule_name="identity", user_defined_symbols=USER_DEFINED)
    for piece in proto.pieces: # as in umt5: these score 0
        if piece.type == pb.ModelProto.SentencePiece.USER_DEFINED:
            piece.score = 0.0
    write_folder(folder, proto, tokenizer_json(proto, 300, [COLLAPSE], False))


def make_map(folder, work):
    rules = [(chr(c), chr(c + 32)) for c in range(0x41, 0x5b)]
    rules += [(chr(0xff01 + i), chr(0x21 + i).lower()) for i in range(94)]
    rules += [("\t", " "), ("\n", " "), ("\u3000", " "), ("\u00a0", " "), ("\u2026", "..."),
              ("\ufb01", "fi"), ("\u2460", "1"), ("\u200b", ""), ("\u00bd", "1/2"), ("ab\u0301", "x")]
    tsv = os.path.join(work, "rules.tsv")
    with open(tsv, "w") as f:
        for source, target in rules:
            f.write(" ".join(f"{ord(c):04X}" for c in source) + "\t" +
                    " ".join(f"{ord(c):04X}" for c in target) + "\n")
    proto = train(900, normalization_rule_tsv=tsv)
    os.remove(tsv)
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    steps = [dict(type="Precompiled", precompiled_charsmap=charsmap),
             dict(type="Strip", strip_left=True, strip_right=True), COLLAPSE]
    write_folder(folder, proto, tokenizer_json(proto, 0, steps, True))


def prompts():
    rng = random.Random(3)
    out = ["", " ", "  ", "a", " a", "a ", "  a  b  ", "\t", "\n", "a\tb", "a\nb\n", "a\r\nb", "\u00a0a\u00a0",
           "\u3000", "a\u3000b", "\u2581", "\u2581\u2581a", "a\u2581b", " \u2581 ", "\u200b", "a\u200bb",
           "\ufeffa", "\x01\x02", "a\x7fb", "\x85", "</s>", "a</s>b", " </s> ", "</s></s>", "<s>", "<pad>",
           "<unk>", "x<unk>y", "<extra_id_0>", "<extra_id_299>", "<extra_id_300>", "a <extra_id_1> b",
           "<extra_id_10><extra_id_1>", "<extra_id_", "< /s>", "</S>", "<0x41>", "a<0x0A>b", "[eod]", "x[eod]y",
           "[code] [wiki]", "[EOD]", "\U0001f98a", "fox \U0001f98a\U0001f98a snow", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
           "\u2764\ufe0f", "e\u0301t\u00e9", "AB\u0301", "\u1e9b\u0323", "\uff26\uff2f\uff38\uff01", "\u2026", "\ufb01sh",
           "\u2460\u2461", "\u00bd cup", "\U0010ffff", "\ue000", "\u0600", "\u0e01\u0e33", "\u0915\u094d\u0937", "\ufffd",
           "don't", "\u201cquoted\u201d \u2018text\u2019", "a,b;c:d", "1,234.56", "http://a.b/c?d=e&f", "C:\\x\\y", "100%",
           "....", "-----", "((()))", "\u4e2d\u6587", "\u4e2d \u6587", "\u4e2d\u6587 english \u4e2d\u6587", "\u7e41\u9ad4\u5b57",
           "\u65e5\u672c\u8a9e\u30c6\u30b9\u30c8", "\ud55c\uad6d\uc5b4", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
           "\u05e2\u05d1\u05e8\u05d9\u05ea", "x" * 50, "ab" * 40, "\u72d0" * 30, "a " * 40, " " * 50, "word " * 600,
           "\U0001f98a" * 300, "\u4e00\u9fa5" * 200, "supercalifragilisticexpialidocious", "ALL CAPS PROMPT", "CamelCaseWords"]
    out += SCENES
    out += [s.upper() for s in SCENES[:4]] + [s[::-1] for s in SCENES[:6]]
    chars = "abc XYZ.,  \t\u4e2d\u6587\u72d0\u00e9\u0301\U0001f98a\u2581<>/s[]\uff21\u2026\n0189'\"-"
    words = " ".join(SCENES).split() + ["</s>", "<extra_id_7>", "\U0001f600", "[web]", "  ", "\u2581"]
    for _ in range(90):
        out.append("".join(rng.choice(chars) for _ in range(rng.randrange(1, 40))))
    for _ in range(40):
        out.append(rng.choice([" ", "  ", ""]).join(rng.choice(words) for _ in range(rng.randrange(1, 30))))
    return out


def encode(folder, text, max_length):
    tok = encode.cache.get(folder)
    if tok is None:
        raw = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        auto = transformers.PreTrainedTokenizerFast(
            tokenizer_file=os.path.join(folder, "tokenizer.json"), pad_token="<pad>", eos_token="</s>",
            unk_token="<unk>")
        tok = encode.cache[folder] = (raw, auto)
    out = tok[1]([text], padding="max_length", max_length=max_length, truncation=True,
                 add_special_tokens=True, return_attention_mask=True)
    ids, mask = out["input_ids"][0], out["attention_mask"][0]
    length = sum(mask)
    assert len(ids) == max_length and all(i == 0 for i in ids[length:])
    whole = tok[0].encode(text).ids
    want = whole if len(whole) <= max_length else whole[:max_length - 1] + [1]
    assert want == ids[:length], (text, want, ids[:length])
    return np.array(ids[:length], dtype=np.int32)


encode.cache = {}


def one_char_graphemes(text):
    """Under a character map tokenizers looks up whole graphemes and takes the shortest source that
    starts one, which loses a combining mark after a mapped letter. sentencepiece and Kinora take the
    longest source at each character; prompts on which they differ are left out."""
    return not any(unicodedata.combining(c) or c in "\u200d\ufe0f\u0e33" for c in text)


def add_model(tensors, name, folder):
    texts = [t for t in prompts() if name != "map" or one_char_graphemes(t)]
    for n, text in enumerate(texts):
        tensors[f"{name}/prompt/{n:03d}"] = np.frombuffer(text.encode(), dtype=np.uint8)
        tensors[f"{name}/ids/{n:03d}"] = encode(folder, text, 512)
        for k in (1, 2, 7, 32):
            if n % 7 == k % 7:
                tensors[f"{name}/cut/{n:03d}/{k}"] = encode(folder, text, k)
    return len(texts)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("out_dir")
    ap.add_argument("--model")
    args = ap.parse_args()
    os.makedirs(args.out_dir, exist_ok=True)
    tensors = {}
    if args.model:
        count = {"model": add_model(tensors, "model", args.model)}
    else:
        make_umt5(os.path.join(args.out_dir, "tokenizer_umt5"))
        make_map(os.path.join(args.out_dir, "tokenizer_map"), args.out_dir)
        count = {name: add_model(tensors, name, os.path.join(args.out_dir, "tokenizer_" + name))
                 for name in ("umt5", "map")}
    path = os.path.join(args.out_dir, "text_tokenizer.safetensors")
    save_file(tensors, path, metadata=dict(
        transformers=transformers.__version__, tokenizers=tokenizers.__version__,
        sentencepiece=spm.__version__, torch=torch.__version__, prompts=str(count)))
    os.chmod(path, 0o644)
    print("prompts:", count)


if __name__ == "__main__":
    main()
