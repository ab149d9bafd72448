"""Tiny random checkpoints that the real VoxCPM loads; what they say is noise of a known length.

The head that decides when to stop is wired: never.  So a sentence lasts until the bound that
VoxCPM sets by the number of its tokens.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaTokenizerFast, PreTrainedTokenizerFast
from voxcpm.model.voxcpm import VoxCPMConfig, VoxCPMModel
from voxcpm.model.voxcpm2 import VoxCPM2Model
from voxcpm.model.voxcpm2 import VoxCPMConfig as VoxCPM2Config
from voxcpm.modules.audiovae import AudioVAE, AudioVAEV2

WIDTH, HEADS, HEAD_WIDTH = 32, 2, 16
FEATURES = 8  # of the audio, each patch
SAMPLE_RATES = {"0.5b": 16_000, "2": 48_000}
CHUNK_SAMPLES = {"0.5b": 1280, "2": 7680}  # 80 ms, 160 ms

_SPECIAL = ("<unk>", "<s>", "</s>")


def build_voxcpm(folder: Path, generation: Literal["0.5b", "2"] = "0.5b", *, seed: int = 0) -> Path:
    """A checkpoint of VoxCPM-0.5B's or VoxCPM 2's architecture."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    config = _config(_save_tokenizer(folder), generation)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    tokenizer = LlamaTokenizerFast.from_pretrained(str(folder))
    if generation == "2":
        parsed = VoxCPM2Config.model_validate(config)
        audio = AudioVAEV2(config=parsed.audio_vae_config)
        model: Any = VoxCPM2Model(parsed, tokenizer, audio, None, device="cpu")
    else:
        parsed = VoxCPMConfig.model_validate(config)
        audio = AudioVAE(config=parsed.audio_vae_config)
        model = VoxCPMModel(parsed, tokenizer, audio, None, device="cpu")
    with torch.no_grad():  # output 0 of the head is "go on"
        model.stop_proj.weight.zero_()
        model.stop_proj.bias.fill_(1.0)
        model.stop_head.weight.zero_()
        model.stop_head.weight[0].fill_(1.0)
    torch.save({"state_dict": audio.state_dict()}, folder / "audiovae.pth")
    weights = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith("audio_vae.")
    }
    save_file(weights, folder / "model.safetensors")
    return folder


def _save_tokenizer(folder: Path) -> int:
    """A token a letter, bytes for the rest; how many there are."""
    pieces = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [chr(code) for code in range(33, 127)]
    plain = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    plain.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="first", split=False
    )
    plain.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    settings["tokenizer_class"] = "LlamaTokenizerFast"
    path.write_text(json.dumps(settings), "utf-8")
    return len(tokenizer)


def _config(vocabulary: int, generation: str) -> dict[str, Any]:
    layers = {"num_heads": HEADS, "num_layers": 1, "kv_channels": HEAD_WIDTH}
    narrow = {"hidden_dim": WIDTH, "ffn_dim": 64, **layers}
    return {
        "architecture": "voxcpm2" if generation == "2" else "voxcpm",
        "lm_config": _language_model(vocabulary),
        "patch_size": 4 if generation == "2" else 2,
        "feat_dim": FEATURES,
        "scalar_quantization_latent_dim": 16,
        "scalar_quantization_scale": 9,
        "residual_lm_num_layers": 1,
        "encoder_config": narrow,
        "dit_config": {
            **narrow,
            "cfm_config": {
                "sigma_min": 1e-6,
                "solver": "euler",
                "t_scheduler": "log-norm",
                "training_cfg_rate": 0.1,
                "inference_cfg_rate": 2.0,
            },
        },
        "audio_vae_config": _audio(generation),
        "max_length": 512,
        "device": "cpu",
        "dtype": "float32",
    }


def _language_model(vocabulary: int) -> dict[str, Any]:
    ones = [1.0] * (HEAD_WIDTH // 2)
    return {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "max_position_embeddings": 4096,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": ones,
            "short_factor": ones,
            "original_max_position_embeddings": 4096,
        },
        "vocab_size": vocabulary,
        "use_mup": False,
        "scale_emb": 1.0,
        "dim_model_base": WIDTH,
        "scale_depth": 1.0,
        "rope_theta": 10000.0,
        "kv_channels": HEAD_WIDTH,
    }


def _audio(generation: str) -> dict[str, Any]:
    common = {
        "encoder_dim": 8,
        "encoder_rates": [2, 5, 8, 8],
        "latent_dim": FEATURES,
        "sample_rate": 16_000,
        "depthwise": True,
        "use_noise_block": False,
    }
    if generation == "2":
        rates = {"decoder_rates": [8, 6, 5, 2, 2, 2], "out_sample_rate": SAMPLE_RATES["2"]}
        return {**common, **rates, "decoder_dim": 64, "cond_dim": 8}
    return {**common, "decoder_rates": [8, 8, 5, 2], "decoder_dim": 32}
