"""Write a training run as a model folder in the diffusers layout (bf16 weights).

    python export.py RUN_FOLDER MODEL_FOLDER
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import wan_torch                                                       # noqa: E402
from tokenizer import MAX_TOKENS, write_tokenizer                      # noqa: E402

SIZE_LIMIT = 24 * 1024 * 1024
UNKNOWN_ID, EMOJI_LEAD_BYTE_ID = 2, 3 + 0xF0

MODEL_INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": "0.33.0",
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
SCHEDULER = {
    "_class_name": "UniPCMultistepScheduler", "_diffusers_version": "0.33.0",
    "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001,
    "disable_corrector": [], "dynamic_thresholding_ratio": 0.995,
    "final_sigmas_type": "zero", "flow_shift": 3.0, "lower_order_final": True,
    "num_train_timesteps": 1000, "predict_x0": True, "prediction_type": "flow_prediction",
    "rescale_betas_zero_snr": False, "sample_max_value": 1.0, "solver_order": 2,
    "solver_p": None, "solver_type": "bh2", "steps_offset": 0, "thresholding": False,
    "timestep_spacing": "linspace", "trained_betas": None, "use_beta_sigmas": False,
    "use_exponential_sigmas": False, "use_flow_sigmas": True, "use_karras_sigmas": False,
}
TRANSFORMER = {
    "_class_name": "WanTransformer3DModel", "_diffusers_version": "0.33.0",
    "added_kv_proj_dim": None, "cross_attn_norm": True, "image_dim": None, "out_channels": 16,
    "patch_size": [1, 2, 2], "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024,
    **wan_torch.DIT_CONFIG,
}
VAE = {
    "_class_name": "AutoencoderKLWan", "_diffusers_version": "0.33.0",
    "attn_scales": [], "dropout": 0.0, **wan_torch.VAE_CONFIG,
}
TEXT_ENCODER = {
    "architectures": ["UMT5EncoderModel"], "classifier_dropout": 0.0,
    "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.0,
    "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
    "is_encoder_decoder": True, "is_gated_act": True, "layer_norm_epsilon": 1e-06,
    "model_type": "umt5", "num_decoder_layers": 2, "output_past": True, "pad_token_id": 0,
    "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
    "scalable_attention": True, "tie_word_embeddings": False, "tokenizer_class": "T5Tokenizer",
    "torch_dtype": "bfloat16", "transformers_version": "4.48.0", "use_cache": True,
    **wan_torch.TEXT_CONFIG,
}
KINORA = {  # the model's own defaults, by the names of kinora's options
    "width": 160, "height": 96, "frames": 17, "fps": 8, "steps": 20, "guidance": 3.0,
    "shift": 3.0, "strength": "0.5,0.4", "refine_shift": 3.0, "refine_guidance": 2.0, "override": False,
    "full_positions": "fitted", "text_length": MAX_TOKENS, "negative_prompt": "",
}


def write_json(value, path, sort=True):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2, sort_keys=sort)
        out.write("\n")


def write_weights(state, path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    state = {name: value.to(torch.bfloat16).contiguous() for name, value in state.items()}
    save_file(state, path, metadata={"format": "pt"})
    os.chmod(path, 0o644)


def export(run, folder):
    def load(name):
        return torch.load(os.path.join(run, name), map_location="cpu")

    def inside(*names):
        return os.path.join(folder, *names)

    weights = {**load("dit_a.pt"), **load("dit_b.pt")}
    dit = {k[len("dit."):]: v for k, v in weights.items() if k.startswith("dit.")}
    text = {k[len("text."):]: v for k, v in weights.items() if k.startswith("text.")}
    # Byte pieces leave no use for <unk>, so it was never trained.  Some tokenizer libraries
    # cannot fall back to bytes and do emit it: let it be as harmless as an emoji's first byte.
    text["shared.weight"][UNKNOWN_ID] = text["shared.weight"][EMOJI_LEAD_BYTE_ID]
    statistics = load("statistics.pt")
    vae_config = dict(VAE, latents_mean=[round(v, 6) for v in statistics["mean"].tolist()],
                      latents_std=[round(v, 6) for v in statistics["std"].tolist()])

    write_json(MODEL_INDEX, inside("model_index.json"))
    write_json(KINORA, inside("kinora.json"), sort=False)
    write_json(SCHEDULER, inside("scheduler", "scheduler_config.json"))
    write_json(TEXT_ENCODER, inside("text_encoder", "config.json"))
    write_json(TRANSFORMER, inside("transformer", "config.json"))
    write_json(vae_config, inside("vae", "config.json"))
    write_weights(text, inside("text_encoder", "model.safetensors"))
    write_weights(dit, inside("transformer", "diffusion_pytorch_model.safetensors"))
    write_weights(load("vae.pt"), inside("vae", "diffusion_pytorch_model.safetensors"))
    write_tokenizer(inside("tokenizer"))

    total = sum(os.path.getsize(os.path.join(path, name))
                for path, _, names in os.walk(folder) for name in names)
    print(f"{folder}: {total} bytes, {SIZE_LIMIT - total} under the limit")
    assert total <= SIZE_LIMIT


if __name__ == "__main__":
    export(sys.argv[1], sys.argv[2])
