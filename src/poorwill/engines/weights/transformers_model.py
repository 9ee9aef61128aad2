"""Makes a small random model that `transformers serve` can serve, with the Python that has transformers.

transformers is nobody's dependency: it and torch take 1.2 GB. Whoever wants it installs it anywhere and puts
its `bin` on PATH.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.engines.weights.gguf_model import CHAT_TEMPLATE, SHAPES
from poorwill.engines.weights.gguf_vocabulary import SPECIALS, learn_vocabulary

PROGRAM = Path(__file__).parents[1] / "programs" / "transformers_model.py"
INSTALL = (
    "python3 -m venv ~/transformers && ~/transformers/bin/pip install torch 'transformers[serving]', "
    "then PATH=~/transformers/bin:$PATH"
)
_MERGES = 400
_LIMIT_S = 600


def make_transformers_model(
    path: str | os.PathLike[str], *, env: Mapping[str, str], size: str = "5m", seed: int = 0
) -> Path:
    """Write a random Llama model in Hugging Face's format and return its directory, which is new.

    Blocks for some ten seconds. Raises OperatorFault if transformers is not on PATH or it fails; then
    nothing is left behind.
    """
    target = Path(path)
    shape = SHAPES[size]
    vocabulary = learn_vocabulary(_MERGES)
    wanted = {
        "tokens": vocabulary.tokens,
        "merges": vocabulary.merges,
        "specials": SPECIALS,
        "printable": vocabulary.printable(),
        "chat_template": CHAT_TEMPLATE,
        "seed": seed,
        "shape": {
            "hidden_size": shape.hidden,
            "intermediate_size": shape.feed_forward,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
        },
    }
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as staging:
        made = Path(staging, "model")
        done = subprocess.run(
            [transformers_python(env), str(PROGRAM), str(made)],
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise OperatorFault(
                ErrorCode.CONFIG_INVALID, f"transformers made no model: {why[0]}", hint=INSTALL
            )
        made.rename(target)
    return target


def transformers_python(env: Mapping[str, str]) -> str:
    """Return the Python interpreter of the `transformers` program on PATH: its first line names it.

    Raises OperatorFault if there is no such program.
    """
    program = shutil.which("transformers", path=env.get("PATH", os.defpath))
    if program is None:
        raise OperatorFault(ErrorCode.CONFIG_INVALID, "no program 'transformers' on PATH", hint=INSTALL)
    with open(program, "rb") as file:
        first = file.readline().decode("utf-8", "replace").strip()
    if not first.startswith("#!"):
        raise OperatorFault(ErrorCode.CONFIG_INVALID, f"{program} is no Python script", hint=INSTALL)
    return first.removeprefix("#!").split()[-1]
