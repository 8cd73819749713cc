"""Build the demo model's tokenizer folder: a small sentencepiece unigram model.

Every caption word is one piece; byte pieces and letters make any other prompt
survive.  The normaliser is sentencepiece's nmt_nfkc_cf (lower-cases).  The same
model is written as spiece.model and as tokenizer.json for T5TokenizerFast.

    python tokenizer.py OUT_FOLDER
"""
import base64
import io
import json
import os
import sys

import data

VOCABULARY = 512                       # rows of the embedding; the last ones are spare
MAX_TOKENS = 32                        # fixed text length of the demo model
LETTERS = "etaoinsrhldcumfpgwybvkxjqz0123456789.,!?'-:;\"()&/%+"
# common English words and pieces, so that ordinary prompts stay inside 32 tokens
COMMON = ("he she it we you i this there two three four red's no not or but for from into near "
          "was are be has make show scene shot camera view looking close up big and left right "
          "man woman cat bird car house city street forest mountain river fire black brown "
          "silver cyan morning day world earth space slow fast high low new old").split()
SUFFIXES = "ing ed er ly es en al on in an re st th ch sh ee oo ou".split()


def piece_list():
    """[(piece, score, kind)] in id order"""
    pieces = [("<pad>", 0.0, "CONTROL"), ("</s>", 0.0, "CONTROL"), ("<unk>", 0.0, "UNKNOWN")]
    pieces += [(f"<0x{byte:02X}>", 0.0, "BYTE") for byte in range(256)]
    seen = set()

    def add(piece, score):
        if piece not in seen:
            seen.add(piece)
            pieces.append((piece, score, "NORMAL"))

    add("\u2581", -4.0)
    for word in data.all_caption_words():
        add("\u2581" + word.lower(), -5.0)
    for letter in LETTERS:
        add(letter, -9.0)
    for suffix in SUFFIXES:
        add(suffix, -8.0)
    for word in COMMON:
        if word.isalpha() and len(pieces) < VOCABULARY:
            add("\u2581" + word, -7.0)
    assert len(pieces) <= VOCABULARY, len(pieces)
    return pieces


def model_proto():
    """A trained-shape ModelProto (for its normaliser) with our pieces."""
    import sentencepiece as spm
    from sentencepiece import sentencepiece_model_pb2 as pb
    buffer = io.BytesIO()
    words = data.all_caption_words()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(words[i:i + 8]) for i in range(len(words))]),
        model_writer=buffer, model_type="unigram", vocab_size=400, byte_fallback=True,
        hard_vocab_limit=False, normalization_rule_name="nmt_nfkc_cf", pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, minloglevel=2)
    proto = pb.ModelProto.FromString(buffer.getvalue())
    del proto.pieces[:]
    for piece, score, kind in piece_list():
        entry = proto.pieces.add()
        entry.piece, entry.score = piece, score
        entry.type = getattr(pb.ModelProto.SentencePiece, kind)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    for field in ("input", "model_prefix", "self_test_sample_size"):
        proto.trainer_spec.ClearField(field)
    return proto


def tokenizer_json(proto):
    special = [dict(id=i, content=text, single_word=False, lstrip=False, rstrip=False,
                    normalized=False, special=True)
               for i, text in enumerate(("<pad>", "</s>", "<unk>"))]
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode("ascii")
    metaspace = dict(type="Metaspace", replacement="\u2581", prepend_scheme="always", split=True)
    return dict(
        version="1.0", truncation=None, padding=None, added_tokens=special,
        normalizer=dict(type="Sequence", normalizers=[
            dict(type="Precompiled", precompiled_charsmap=charsmap),
            dict(type="Strip", strip_left=True, strip_right=True),
            dict(type="Replace", pattern=dict(Regex=" {2,}"), content=" ")]),
        pre_tokenizer=metaspace,
        post_processor=dict(
            type="TemplateProcessing",
            single=[dict(Sequence=dict(id="A", type_id=0)),
                    dict(SpecialToken=dict(id="</s>", type_id=0))],
            pair=[dict(Sequence=dict(id="A", type_id=0)),
                  dict(SpecialToken=dict(id="</s>", type_id=0)),
                  dict(Sequence=dict(id="B", type_id=0)),
                  dict(SpecialToken=dict(id="</s>", type_id=0))],
            special_tokens={"</s>": dict(id="</s>", ids=[1], tokens=["</s>"])}),
        decoder=metaspace,
        model=dict(type="Unigram", unk_id=2, byte_fallback=True,
                   vocab=[[p.piece, p.score] for p in proto.pieces]))


def _dump(value, path, **options):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, **options)
        out.write("\n")


def write_tokenizer(folder):
    os.makedirs(folder, exist_ok=True)
    proto = model_proto()
    with open(os.path.join(folder, "spiece.model"), "wb") as out:
        out.write(proto.SerializeToString(deterministic=True))
    _dump(tokenizer_json(proto), os.path.join(folder, "tokenizer.json"))
    special = dict(eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    _dump(special, os.path.join(folder, "special_tokens_map.json"), indent=2)
    added = {str(i): dict(content=text, lstrip=False, normalized=False, rstrip=False,
                          single_word=False, special=True)
             for i, text in enumerate(("<pad>", "</s>", "<unk>"))}
    _dump(dict(added_tokens_decoder=added, additional_special_tokens=[],
               clean_up_tokenization_spaces=False, eos_token="</s>", extra_ids=0,
               model_max_length=MAX_TOKENS, pad_token="<pad>", sp_model_kwargs={},
               tokenizer_class="PreTrainedTokenizerFast", unk_token="<unk>"),
          os.path.join(folder, "tokenizer_config.json"), indent=2)
    return proto


class Tokenizer:
    """Prompts -> fixed-length id rows, through the sentencepiece library itself."""

    def __init__(self, model_file):
        import sentencepiece as spm
        self.processor = spm.SentencePieceProcessor(model_file=model_file)

    def __call__(self, prompts, length=MAX_TOKENS):
        import numpy as np
        ids = np.zeros((len(prompts), length), dtype=np.int64)
        for row, pieces in zip(ids, self.processor.encode(list(prompts))):
            pieces = pieces[:length - 1] + [1]
            row[:len(pieces)] = pieces
        return ids


if __name__ == "__main__":
    print(len(write_tokenizer(sys.argv[1]).pieces), "pieces")
