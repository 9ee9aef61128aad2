"""Makes a small random Llama model in Hugging Face's format, for `transformers serve`.

Runs under the Python that has transformers and torch, which need not be poorwill's, and imports nothing of
poorwill. What to make comes as JSON on standard input; see `engines/weights/transformers_model.py`.
"""

import argparse
import json
import sys
from typing import Any


def tokenizer(wanted: dict[str, Any]) -> Any:
    """Return the byte-level BPE tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(wanted["tokens"])}
    merges = [tuple(pair) for pair in wanted["merges"]]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    unknown, begin, end = wanted["specials"]
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token=unknown, bos_token=begin, eos_token=end)
    fast.chat_template = wanted["chat_template"]
    return fast


def model(wanted: dict[str, Any]) -> Any:
    """Return the model: noise, of which greedy text is printable and ends only at max_tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(wanted["seed"])
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(wanted["tokens"]),
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=False,
            max_position_embeddings=4096,
            **wanted["shape"],
        )
    )
    with torch.no_grad():
        silent = torch.ones(len(wanted["tokens"]), dtype=torch.bool)
        silent[wanted["printable"]] = False
        made.lm_head.weight.mul_(50.0)
        made.lm_head.weight[silent] = 0
    return made.to(torch.bfloat16)


def main(argv: list[str]) -> None:
    """Make the model into a directory."""
    parser = argparse.ArgumentParser(prog="transformers_model", description=__doc__)
    parser.add_argument("directory")
    directory = parser.parse_args(argv).directory
    wanted = json.load(sys.stdin)
    tokenizer(wanted).save_pretrained(directory)
    model(wanted).save_pretrained(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
