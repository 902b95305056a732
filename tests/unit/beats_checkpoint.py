"""A small checkpoint in the format of the official BEATs ones, with random weights that are the same everywhere."""

import hashlib
from pathlib import Path

import numpy as np
import torch

CFG = {
    "input_patch_size": 16,
    "embed_dim": 24,
    "conv_bias": False,
    "encoder_layers": 3,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 64,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.1,
    "layer_wise_gradient_decay_ratio": 0.6,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "relative_position_embedding": True,
    "num_buckets": 32,
    "max_distance": 60,
    "gru_rel_pos": True,
    "finetuned_model": False,
}

#: Like the published checkpoints, like those that were fine-tuned, and with the other values that a cfg may have.
VARIANTS = {
    "as_published": CFG,
    "fine_tuned": CFG | {"finetuned_model": True, "predictor_dropout": 0.0, "predictor_class": 5},
    "otherwise": CFG
    | {
        "layer_norm_first": True,
        "deep_norm": False,
        "gru_rel_pos": False,
        "activation_fn": "relu",
        "embed_dim": 48,
        "conv_bias": True,
    },
}


def shapes(cfg: dict) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the weights."""
    width, inner, patch = cfg["encoder_embed_dim"], cfg["encoder_ffn_embed_dim"], cfg["input_patch_size"]
    heads, embed, kernel = cfg["encoder_attention_heads"], cfg["embed_dim"], cfg["conv_pos"]
    found: dict[str, tuple[int, ...]] = {"patch_embedding.weight": (embed, 1, patch, patch)}
    if cfg["conv_bias"]:
        found["patch_embedding.bias"] = (embed,)
    found |= {"layer_norm.weight": (embed,), "layer_norm.bias": (embed,)}
    if embed != width:
        found |= {"post_extract_proj.weight": (width, embed), "post_extract_proj.bias": (width,)}
    found |= {
        "encoder.pos_conv.0.bias": (width,),
        "encoder.pos_conv.0.weight_g": (1, 1, kernel),
        "encoder.pos_conv.0.weight_v": (width, width // cfg["conv_pos_groups"], kernel),
        "encoder.layer_norm.weight": (width,),
        "encoder.layer_norm.bias": (width,),
    }
    for i in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{i}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            found |= {f"{layer}self_attn.{name}.weight": (width, width), f"{layer}self_attn.{name}.bias": (width,)}
        found[f"{layer}self_attn.relative_attention_bias.weight"] = (cfg["num_buckets"], heads)
        if cfg["gru_rel_pos"]:
            found |= {
                f"{layer}self_attn.grep_linear.weight": (8, width // heads),
                f"{layer}self_attn.grep_linear.bias": (8,),
                f"{layer}self_attn.grep_a": (1, heads, 1, 1),
            }
        found |= {f"{layer}fc1.weight": (inner, width), f"{layer}fc1.bias": (inner,)}
        found |= {f"{layer}fc2.weight": (width, inner), f"{layer}fc2.bias": (width,)}
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            found |= {f"{layer}{norm}.weight": (width,), f"{layer}{norm}.bias": (width,)}
    if cfg["finetuned_model"]:
        found |= {"predictor.weight": (cfg["predictor_class"], width), "predictor.bias": (cfg["predictor_class"],)}
    return found


def weights(cfg: dict) -> dict[str, torch.Tensor]:
    """Random weights; all layers share the position biases, as in the published checkpoints."""
    random = np.random.RandomState(7)  # a stream that NumPy promises never to change
    made = {}
    for name, shape in sorted(shapes(cfg).items()):
        value = random.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        if "norm.weight" in name or name.endswith(("weight_g", "grep_a")):
            value = 1.0 + 0.1 * random.standard_normal(shape)
        elif "relative_attention_bias" in name:
            value = random.standard_normal(shape)
        made[name] = torch.tensor(value, dtype=torch.float32)
    shared = made["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    return {name: shared if "relative_attention_bias" in name else value for name, value in made.items()}


def write_checkpoint(path: Path, like: dict = CFG, **changes: object) -> str:
    """Write the checkpoint that has the cfg `like`, with parts of it changed, and return its SHA-256."""
    torch.save({"cfg": like, "model": weights(like)} | changes, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sound() -> torch.Tensor:
    """Two sounds of 1.1 s at 16 kHz: noise with a chirp, and a noise that comes and goes. Shape (2, samples)."""
    random = np.random.RandomState(8)
    t = np.arange(17_600) / 16_000
    chirp = 0.2 * np.sin(2 * np.pi * (1000 + 2000 * t) * t) + 0.01 * random.standard_normal(t.shape)
    noise = 0.3 * np.sin(2 * np.pi * 3 * t) * random.standard_normal(t.shape)
    return torch.tensor(np.stack([chirp, noise]), dtype=torch.float32)
