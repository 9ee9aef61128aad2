"""A random Llama model of a given size in the Hugging Face layout, made on the spot: nothing is downloaded.

Weights are bfloat16 noise in one safetensors file (8 bytes of header length, a JSON header, the data; see
the safetensors format), the tokenizer is a byte-level BPE without merges.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VOCABULARY = 512
HEAD = 128


@dataclass(frozen=True)
class Size:
    hidden: int
    layers: int

    @property
    def feed_forward(self) -> int:
        return self.hidden * 7 // 2

    @property
    def heads(self) -> int:
        return self.hidden // HEAD

    @property
    def kv_heads(self) -> int:
        return max(1, self.heads // 4)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        hidden, kv = self.hidden, self.kv_heads * HEAD
        yield "model.embed_tokens.weight", (VOCABULARY, hidden)
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            yield f"{name}.input_layernorm.weight", (hidden,)
            yield f"{name}.self_attn.q_proj.weight", (hidden, hidden)
            yield f"{name}.self_attn.k_proj.weight", (kv, hidden)
            yield f"{name}.self_attn.v_proj.weight", (kv, hidden)
            yield f"{name}.self_attn.o_proj.weight", (hidden, hidden)
            yield f"{name}.post_attention_layernorm.weight", (hidden,)
            yield f"{name}.mlp.gate_proj.weight", (self.feed_forward, hidden)
            yield f"{name}.mlp.up_proj.weight", (self.feed_forward, hidden)
            yield f"{name}.mlp.down_proj.weight", (hidden, self.feed_forward)
        yield "model.norm.weight", (hidden,)
        yield "lm_head.weight", (VOCABULARY, hidden)

    @property
    def bytes(self) -> int:
        return sum(2 * int(np.prod(shape)) for _, shape in self.tensors())


def size_for(gigabytes: float) -> Size:
    """Return the shape whose weights come closest to a size, with the proportions of common models."""
    candidates = [Size(hidden, layers) for hidden in (1024, 2048, 4096, 8192) for layers in range(2, 81)]
    fitting = [size for size in candidates if 12 <= size.hidden / size.layers <= 160]
    return min(fitting, key=lambda size: abs(size.bytes - gigabytes * 1e9))


def write_model(directory: Path, size: Size, *, seed: int = 0) -> Path:
    """Write the model into a new directory and return it."""
    directory.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_size": size.hidden,
        "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": HEAD,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    write_weights(directory / "model.safetensors", size, seed)
    _write_tokenizer(directory)
    return directory


def write_weights(path: Path, size: Size, seed: int) -> None:
    """Write random bfloat16 weights as one safetensors file."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in size.tensors():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in size.tensors():
            if name.endswith("norm.weight"):
                values = np.ones(shape, dtype=np.float32)
            else:
                values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            # bfloat16 is the upper half of a float32.
            file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {letter: 2 + n for n, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "model_max_length": 4096,
            }
        )
    )
