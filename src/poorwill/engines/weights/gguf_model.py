"""Makes a small random Llama model as a GGUF file, so that everything can run without a download.

The file is written through the `gguf` package, the format's own. The weights are noise, but the model is a
real one: it is tokenised, loaded, batched and sampled like any other, and its greedy text depends on every
layer. Same arguments, same bytes.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.engines.weights.gguf_vocabulary import SPECIALS, Vocabulary, learn_vocabulary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Array = NDArray[np.float16 | np.float32]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
_CONTEXT = 4096
_MERGES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The dimensions of a Llama model."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int


SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "5m": Shape(hidden=256, feed_forward=704, layers=6, heads=8, kv_heads=2),
        "100m": Shape(hidden=768, feed_forward=2048, layers=15, heads=12, kv_heads=4),
        "1b": Shape(hidden=2048, feed_forward=5632, layers=21, heads=16, kv_heads=4),
        "4b": Shape(hidden=4096, feed_forward=11008, layers=24, heads=32, kv_heads=8),
    }
)
"""Sizes by name: about that many parameters, two bytes each."""


def make_model(path: str | os.PathLike[str], *, size: str = "5m", seed: int = 0) -> Path:
    """Write a random Llama model and return its path. An existing file is replaced as a whole.

    Blocks for well under a second (5m), a few seconds (100m), half a minute (1b) or some minutes (4b). Raises
    OperatorFault if the size is unknown or the file cannot be written; then nothing is left behind.
    """
    target = Path(path)
    if size not in SHAPES:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID, f"no model size {size!r}", hint=f"one of {', '.join(SHAPES)}"
        )
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        try:
            _write(name, size=size, seed=seed)
            os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"cannot write the model {target}: {error.strerror or error}",
            hint="give a path in an existing directory with room for it",
        ) from error
    return target


def _write(path: str, *, size: str, seed: int) -> None:
    import gguf  # 0.1 s to import; most runs make no model

    shape = SHAPES[size]
    vocabulary = learn_vocabulary(_MERGES)
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=True)  # not all weights in memory at once
    writer.add_name(f"poorwill-random-{size}")
    writer.add_description("random weights, for trying poorwill out")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, vocabulary, gguf)
    for name, array in _tensors(shape, vocabulary, seed):
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, vocabulary: Vocabulary, gguf: Any) -> None:
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types([control if i < len(SPECIALS) else normal for i in range(len(vocabulary.tokens))])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary.merges])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(shape: Shape, vocabulary: Vocabulary, seed: int) -> Iterator[tuple[str, "_Array"]]:
    """Yield every tensor: each row scaled by 1/sqrt(fan-in), so that all layers matter alike.

    Rows of q and k need no permutation for GGUF's rotary layout: permuted noise is noise.
    """
    import numpy as np

    random = np.random.default_rng(seed)

    def noise(rows: int, columns: int, *, scale: float = 1.0) -> "_Array":
        values = random.standard_normal((rows, columns), dtype=np.float32)
        values *= scale / np.sqrt(columns)
        return values.astype(np.float16)

    ones = np.ones(shape.hidden, dtype=np.float32)
    kv = shape.hidden // shape.heads * shape.kv_heads
    count = len(vocabulary.tokens)
    yield "token_embd.weight", noise(count, shape.hidden, scale=np.sqrt(shape.hidden))
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight", ones
        yield f"blk.{layer}.attn_q.weight", noise(shape.hidden, shape.hidden)
        yield f"blk.{layer}.attn_k.weight", noise(kv, shape.hidden)
        yield f"blk.{layer}.attn_v.weight", noise(kv, shape.hidden)
        yield f"blk.{layer}.attn_output.weight", noise(shape.hidden, shape.hidden)
        yield f"blk.{layer}.ffn_norm.weight", ones
        yield f"blk.{layer}.ffn_gate.weight", noise(shape.feed_forward, shape.hidden)
        yield f"blk.{layer}.ffn_up.weight", noise(shape.feed_forward, shape.hidden)
        yield f"blk.{layer}.ffn_down.weight", noise(shape.hidden, shape.feed_forward)
    yield "output_norm.weight", ones
    # Logits of printable tokens spread widely; those of all others, the end of text among them, are 0.
    # So greedy text is readable ASCII and ends only at max_tokens.
    output = noise(count, shape.hidden, scale=8.0)
    silent = np.ones(count, dtype=bool)
    silent[vocabulary.printable()] = False
    output[silent] = 0
    yield "output.weight", output
