#!/usr/bin/env python3
"""Golden data for tests/golden/text_clean.c: what diffusers' prompt_clean makes of prompts.

    golden_text_clean.py OUT_DIR

Writes OUT_DIR/text_clean.safetensors, uint8 tensors:
    in/<n>, out/<n>      a prompt and diffusers.pipelines.wan prompt_clean of it
    left/<n>, kept/<n>   damage that Kinora leaves (text/mojibake.h), and prompt_clean of it with ftfy's
                         fix_encoding off
    nfc_in, nfc_out      every canonical composition and decomposition of Unicode, and mixes of marks
"""
import argparse
import html
import os
import random
import sys
import unicodedata

import diffusers
import ftfy
import numpy as np
from diffusers.pipelines.wan.pipeline_wan import prompt_clean, whitespace_clean
from safetensors.numpy import save_file

TEXTS = ["café au lait", "naïve coöperation", "señor niño", "Ärger über Öl", "ÀÉÎÕÜ", "it’s “quoted” text…",
         "price 5€ – cheap", "中文提示词", "一只狐狸，雪地。", "日本語のテキスト", "한국어 문장", "русский текст",
         "Ελληνικά", "🦊 fox", "👨‍👩‍👧 family", "♥ love ✓", "½ cup", "30°C", "x² + y³", "© 2024 ®", "über ½ £5"]
PLAIN = ["", " ", "   ", "a", " a ", "a  b", "\ta\nb\r\nc\rd\x0be\x0cf", "a\u00a0b", "\u2003a\u2009b\u3000c",
         "a\u2028b\u2029c\x85d", "a\x1cb\x1db\x1eb\x1fb", "a\u200bb\u200cc\u200dd", "\ufeffa\ufeffb", "a\u00adb",
         "don't", "don’t", "‘a’ “b” ‛c‛ „d‟ ʼe", "«a» ‹b›", "ﬁne ﬂow oﬀ oﬃce baﬄe ﬅ ﬆ", "Ĳssel ĳs ŉ Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ",
         "œuvre Œ æ Æ", "ＬＯＵＤ　ＮＯＩＳＥＳ！？", "ｱｲｳﾞｶﾞ ﾊﾟ", "￠￡￥￦￣", "ﾡﾢￂￃ", "\x1b[31mred\x1b[0m \x1b[1;44mx\x1b[",
         "\x1b]0;x\x07", "a\x00b".replace("\x00", "\x01"), "\x01\x02\x08\x0e\x7f", "\u206a\u206f\ufff9x\ufffb\ufffc", "\u202aL\u202c",
         "e\u0301 n\u0303 A\u030a", "a\u0323\u0301 a\u0301\u0323", "\u1e9b\u0323", "\u212b \u2126 \u212a", "각 한글", "\u1112\u1161\u11ab",
         "\u0915\u093c", "\u0958", "\ufb1d \ufb2a", "\u0344", "\u2adc", "q\u0307\u0323", "\u00c5\u0301", "\uac00\u11a8", "\u1100\u1161\u1161",
         "&amp;", "&lt;b&gt;", "&amp;lt;", "&amp;amp;lt;", "&amp;amp;amp;amp;", "&#233; &#xe9; &#XE9;", "&#233 x", "&#x110000; &#0; &#xd800;",
         "&#x80; &#x99; &#x81; &#13; &#11; &#12; &#1; &#xfffe; &#xfdd0;", "&#99999999999999999999;", "&#; &#x; &#xg;", "&#12ab;", "&#59;", "&#38;amp;",
         "&eacute; &EACUTE; &Eacute; &eacute &notin; &notit; &not &copy &copycat; &hellip;", "&NTILDE; &nTILDE; &SZLIG; &ALPHA;",
         "&CounterClockwiseContourIntegral;", "&NotEqualTilde; &acE; &fjlig; &ThickSpace;x", "&unknown; & && &;", "&a &aa &zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz;",
         "AT&T R&D &T;", "this&not that", "a&lt b", "?a=1&copy=2&para=3", "&quot;x&quot; &apos;y&apos; &nbsp;z&nbsp;", "<b>&amp;</b>", "<b>\n&amp;amp;amp;", "x &amp;amp;amp;\n<b> &amp;amp;amp;\n&amp;amp;amp;",
         "&lt;&amp;amp;gt;", "&amp;#233;", "&é;", "&amp\u00e9;", "&lt\u0301", "&#x1F98A;", "&#65;&#66;", "&ngE;", "&nvlt; &nvgt;",
         "CAFÉ’S", "CAFÉ…", "café”…", "“CAFÉ”", "«CAFÉ»", "É® Ü™ Ñ—", "SEÑOR’S NIÑO", "À la mode, à la carte", "Ångström Å", "Ümläüt", "NÃO é", "São Paulo, pão", "¿Qué? ¡Olé!",
         "Dvořák, Škoda, žluťoučký", "łódź", "İstanbul", "Привет, мир", "Γειά σου", "שלום", "مرحبا بالعالم", "नमस्ते", "ไทย", "中文，标点。", "全角ＡＢＣ１２３", "「日本語」", "가나다",
         "a red fox, cinematic — 4K, 24 fps", "2°C", "5 × 4 ÷ 2", "½ ¼ ¾", "¢ £ ¥ €", "§ ¶", "• bullet", "…", "™ ® ©", "a–b—c", "x ² y ³", "\ufffd", "a\ufffdb",
         "\U0001f98a\U0001f3fd", "❤️", "🇫🇷", "👩‍💻", "\U000e0067\U000e007f", "𝒥ohn", "ⅷ ⑧ ㎏", "ℌ", "ſt", "ß ẞ", "Ω Ω", "\u0130i\u0307"]
# whole prompts in which every character past ASCII is damaged, parts of prompts, twice damaged
EXTRA = ["\u00c5\u201cuvre", "a c\u00c5\u201cur", "caf\u00c3\u00a9 and \u4e2d\u6587", "\u4e2d\u6587 it\u00e2\u20ac\u2122s", "&Atilde;&copy;", "\u00c3\u0192\u00c2\u00a9", "na\u00c3\u00afve \u201cquote\u201d",
         "\x93quoted\x94 it\x92s", "\x85 dots", "\u00e2\u0080\u0099s", "\u00e2\u20ac\u00a6", "1\u00c2\u00bd cups", "\u00c2\u00a9 2024", "30\u00c2\u00b0C", "\u00f0\u0178\u00a6\u0160 fox",
         "\u00e2\u0153\u201d No problems", "\u00e3\u0083\u0084", "\u00c3\u00a9t\u00c3\u00a9 &amp; \u00c3\u00a0 bient\u00c3\u00b4t"]
LEFT = ["привет мир".encode().decode("cp1251"), "café né".encode().decode("cp437"), "café né".encode().decode("mac_roman"),
        "café né".encode().decode("cp1250"), "it’s — “quote”".encode().decode("mac_roman"), "voil\u00c3  le travail",
        "caf\u00c3\ufffd au lait"]


def damage(text, codec):
    try:
        return text.encode().decode(codec)
    except UnicodeDecodeError:
        return None


def damaged():
    out = list(EXTRA)
    for text in TEXTS:
        for codec in ("latin-1", "cp1252", "sloppy-windows-1252"):
            once = damage(text, codec)
            if once:
                out.append(once)
                out.append("A sign that says " + once + ", photo")
                twice = damage(once, "sloppy-windows-1252")
                if twice:
                    out.append(twice)
    return out


def random_texts():
    rng = random.Random(11)
    pool = (list("abcXYZ .,-'\"\t\n<;#") + ["&amp;", "&#233;", "&eacute", "&lt;", "&NTILDE;", "\u2019", "\u201c", "\uff21", "\ufb01", "\u3000", "\u0301", "\u0323", "e", "o",
            "\u4e2d", "\u00e9", "\u00e5", "\u1112", "\u1161", "\u11ab", "\U0001f98a", "\u2028", "\x1b[1m", "\ufeff", "\x07", "\u200b", "\u0915\u093c", "\r\n", "\u1e0b\u0323"])
    return ["".join(rng.choice(pool) for _ in range(rng.randrange(1, 30))) for _ in range(120)]


def without_encoding(text):
    text = ftfy.fix_text(text, ftfy.TextFixerConfig(fix_encoding=False))
    return whitespace_clean(html.unescape(html.unescape(text)).strip())


def nfc_cases():
    rng = random.Random(5)
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and unicodedata.decomposition(chr(c))[:1] not in ("", "<")]
    marks = [chr(c) for c in range(0x300, 0x370)] + [chr(c) for c in (0x93c, 0x94d, 0x3099, 0x5b0, 0x5bc, 0x1d165, 0x1d16d, 0x20d0)]
    parts = every + [unicodedata.normalize("NFD", c) for c in every]
    for _ in range(600):
        parts.append(rng.choice("aeiouAO\u0915\u304b\u05e9qz\u1100\uac00") + "".join(rng.choice(marks) for _ in range(rng.randrange(1, 6))))
    parts += [chr(rng.randrange(0xAC00, 0xD7A4)) for _ in range(40)] + [unicodedata.normalize("NFD", chr(c)) for c in range(0xAC00, 0xD7A4, 97)]
    return "|".join(parts)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("out_dir")
    args = ap.parse_args()
    os.makedirs(args.out_dir, exist_ok=True)
    tensors = {}

    def put(name, text):
        tensors[name] = np.frombuffer(text.encode(), dtype=np.uint8)
    texts = PLAIN + TEXTS + damaged() + random_texts()
    for n, text in enumerate(texts):
        put(f"in/{n:03d}", text)
        put(f"out/{n:03d}", prompt_clean(text))
    for n, text in enumerate(LEFT):
        assert without_encoding(text) != prompt_clean(text), text
        put(f"left/{n:03d}", text)
        put(f"kept/{n:03d}", without_encoding(text))
    nfc = nfc_cases()
    put("nfc_in", nfc)
    put("nfc_out", unicodedata.normalize("NFC", nfc))
    path = os.path.join(args.out_dir, "text_clean.safetensors")
    save_file(tensors, path, metadata=dict(diffusers=diffusers.__version__, ftfy=ftfy.__version__,
                                           python=sys.version.split()[0], unicode=unicodedata.unidata_version))
    os.chmod(path, 0o644)
    print(len(texts), "prompts,", len(LEFT), "left")


if __name__ == "__main__":
    main()
