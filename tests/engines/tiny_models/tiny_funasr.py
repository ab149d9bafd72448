"""Tiny checkpoints that the real FunASR loads, and that understand what the test chose.

Fun-ASR-Nano: the audio encoder is random, the language model is wired by hand.  Its
embedding is one-hot, its layers add nothing, and its output layer maps each token to its
successor: whatever was heard, the chosen words follow one another.

SenseVoice: the last layer ignores its input and prefers one token, the whole text.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch
import yaml
from funasr.register import tables
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config

LLM_FOLDER = "Qwen3-0.6B"
FEATURES = 560  # 80 mel bands, 7 frames side by side
ENCODER = {
    "output_size": 32,
    "attention_heads": 4,
    "linear_units": 64,
    "num_blocks": 2,
    "tp_blocks": 1,
    "dropout_rate": 0.1,
    "positional_dropout_rate": 0.1,
    "attention_dropout_rate": 0.1,
    "input_layer": "pe",
    "pos_enc_class": "SinusoidalPositionEncoder",
    "normalize_before": True,
    "kernel_size": 11,
    "sanm_shfit": 0,
    "selfattention_layer_type": "sanm",
}
FRONTEND = {
    "fs": 16000,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": 7,
    "lfr_n": 6,
}


def build_nano(folder: Path, words: Sequence[str], *, endless: bool = False) -> Path:
    """Fun-ASR-Nano that hears these words (" with" blanks); endless: over and over again."""
    torch.manual_seed(0)
    llm_folder = folder / LLM_FOLDER
    llm_folder.mkdir(parents=True)
    tokenizer = _save_tokenizer(llm_folder, words)
    size = len(tokenizer) + -len(tokenizer) % 8  # divisible among the attention heads
    _save_llm_config(llm_folder, tokenizer, size)
    config = {
        "model": "FunASRNano",
        "model_conf": {},
        "audio_encoder": "SenseVoiceEncoderSmall",
        "audio_encoder_conf": {**ENCODER, "freeze": True},
        "llm": "Qwen3-0.6b",
        "llm_conf": {
            "hub": "hf",
            "freeze": True,
            "llm_dtype": "fp32",
            "init_param_path": LLM_FOLDER,
        },
        "audio_adaptor": "Transformer",
        "audio_adaptor_conf": {
            "downsample_rate": 1,
            "use_low_frame_rate": True,
            "ffn_dim": 64,
            "llm_dim": size,
            "encoder_dim": ENCODER["output_size"],
            "n_layer": 1,
            "attention_heads": 4,
            "freeze": True,
        },
        "frontend": "WavFrontend",
        "frontend_conf": {**FRONTEND, "cmvn_file": None},
        "tokenizer": "HuggingfaceTokenizer",
        "tokenizer_conf": {"init_param_path": LLM_FOLDER},
        "dataset_conf": {"do_think": False, "sys_prompt": True},
    }
    _save_config(
        folder,
        config,
        {
            "tokenizer_conf": {"init_param_path": LLM_FOLDER},
            "llm_conf": {"init_param_path": LLM_FOLDER},
        },
    )
    elsewhere = {**config["llm_conf"], "init_param_path": str(llm_folder)}
    arguments = {**config, "llm_conf": elsewhere}
    arguments.pop("model")
    model = tables.model_classes["FunASRNano"](input_size=FEATURES, **arguments)
    ids = [tokenizer.convert_tokens_to_ids(word) for word in words]
    last = ids[0] if endless else tokenizer.eos_token_id
    _wire(model.llm, size, first=ids[0], successors=dict(zip(ids, [*ids[1:], last], strict=True)))
    torch.save({"state_dict": model.state_dict()}, folder / "model.pt")
    return folder


def _save_tokenizer(folder: Path, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a byte, and one for each word."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.add_tokens([AddedToken(word, normalized=False, special=False) for word in words])
    tokenizer.save_pretrained(folder)
    return tokenizer


def _save_llm_config(folder: Path, tokenizer: PreTrainedTokenizerFast, size: int) -> None:
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        **ends,
    )
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    GenerationConfig(do_sample=False, **ends).save_pretrained(folder)


def _wire(llm: torch.nn.Module, size: int, *, first: int, successors: dict[int, int]) -> None:
    """Makes the language model a table: after each token its successor, else `first`."""
    following = torch.zeros(size, size)
    following[first, :] = 1.0
    for token, successor in successors.items():
        following[:, token] = 0.0
        following[successor, token] = 1.0
    with torch.no_grad():
        for name, parameter in llm.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        llm.model.embed_tokens.weight.copy_(torch.eye(size))
        llm.lm_head.weight.copy_(following)


def build_sensevoice(folder: Path, text: str) -> Path:
    """SenseVoice that hears this text, with the tags that the real one writes before it."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    piece = f"<|en|><|NEUTRAL|><|Speech|><|withitn|>{text}".replace(" ", "▁")
    vocabulary = _train_pieces(folder, piece)
    (folder / "am.mvn").write_text(_no_normalization(), "utf-8")
    config = {
        "model": "SenseVoiceSmall",
        "model_conf": {"length_normalized_loss": True},
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": ENCODER,
        "frontend": "WavFrontend",
        "frontend_conf": {**FRONTEND, "cmvn_file": None},
        "tokenizer": "SentencepiecesTokenizer",
        "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
    }
    _save_config(
        folder,
        config,
        {
            "tokenizer_conf": {"bpemodel": "chn_jpn_yue_eng_ko_spectok.bpe.model"},
            "frontend_conf": {"cmvn_file": "am.mvn"},
        },
    )
    model = tables.model_classes["SenseVoiceSmall"](
        input_size=FEATURES,
        vocab_size=vocabulary.get_piece_size(),
        encoder="SenseVoiceEncoderSmall",
        encoder_conf=ENCODER,
        length_normalized_loss=True,
    )
    with torch.no_grad():
        model.ctc.ctc_lo.weight.zero_()
        model.ctc.ctc_lo.bias.zero_()
        model.ctc.ctc_lo.bias[vocabulary.piece_to_id(piece)] = 1.0
    torch.save({"state_dict": model.state_dict()}, folder / "model.pt")
    return folder


def _train_pieces(folder: Path, piece: str) -> sentencepiece.SentencePieceProcessor:
    """A vocabulary of letters and one piece that is a whole text."""
    letters = folder / "letters.txt"
    letters.write_text("\n".join("abcdefghijklmnopqrstuvwxyz"), "utf-8")
    name = folder / "chn_jpn_yue_eng_ko_spectok.bpe"
    sentencepiece.SentencePieceTrainer.train(
        input=str(letters),
        model_prefix=str(name),
        vocab_size=40,
        model_type="char",
        user_defined_symbols=[piece],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=f"{name}.model")


def _no_normalization() -> str:
    """Kaldi's text form of: add 0, multiply by 1."""
    zeros, ones = " ".join(["0"] * FEATURES), " ".join(["1"] * FEATURES)
    return (
        f"<Nnet>\n<Splice> {FEATURES} {FEATURES}\n[ 0 ]\n"
        f"<AddShift> {FEATURES} {FEATURES}\n<LearnRateCoef> 0 [ {zeros} ]\n"
        f"<Rescale> {FEATURES} {FEATURES}\n<LearnRateCoef> 0 [ {ones} ]\n</Nnet>\n"
    )


def _save_config(folder: Path, config: dict[str, object], paths: dict[str, object]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    about = {
        "framework": "pytorch",
        "task": "auto-speech-recognition",
        "model": {"type": "funasr"},
        "file_path_metas": {"init_param": "model.pt", "config": "config.yaml", **paths},
    }
    (folder / "configuration.json").write_text(json.dumps(about), "utf-8")
