"""The demo's fleet directory: a model that it makes itself, and an ordinary `fleet.toml`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from poorwill.compose.demo.replay import TRACE_S
from poorwill.config import load_fleet
from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.settings import Address, FleetSettings
from poorwill.engines.weights.gguf_model import make_model
from poorwill.engines.weights.transformers_model import make_transformers_model
from poorwill.hosts.files.opening import own_directory
from poorwill.tiers.proof import free_port

IDLE_SHARE = 1 / 30
"""The linger as a part of the whole: four minutes of the trace's two hours, however compressed."""

OURS = "# The fleet of `poorwill demo`."

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "llama.cpp": """\
engine = "llama.cpp"
path = "{model_file}"
context = 4096
options = {{ threads = 1, parallel = 1 }}""",
        "transformers": """\
engine = "transformers"
path = "{model_file}"
env = {{ HF_HUB_OFFLINE = "1", OMP_NUM_THREADS = "1" }}
options = {{ continuous_batching = true, cb_num_blocks = 64, cb_block_size = 32 }}""",
    }
)
"""The engines the demo can run. By default transformers would take 9.5 GB of memory for its KV cache."""


ON_HOSTS = "\nhosts = {}\nreplicas = 2"


def demo_fleet(
    named: str,
    *,
    engine: str,
    size: str,
    seconds: float,
    hosts: int = 0,
    env: Mapping[str, str],
    tell: Callable[[str], None],
) -> FleetSettings:
    """Make the model and the fleet's configuration, or take those of an earlier demo.

    Raises OperatorFault if the directory holds something else.
    """
    directory = Path(named)
    configuration = directory / "fleet.toml"
    try:
        own_directory(directory)
        written = configuration.read_text(encoding="utf-8") if configuration.is_file() else ""
    except OSError as error:
        what = f"{directory} cannot be used: {error.strerror}"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="choose another with --dir") from error
    ours = written.startswith(OURS)
    if not ours and any(directory.iterdir()):
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"{directory} exists and is no demo of ours; nothing was written",
            hint="choose another with --dir",
        )
    model_file = _model_file(directory, engine=engine, size=size, env=env, tell=tell)
    template = files("poorwill.compose.demo").joinpath("fleet.toml").read_text(encoding="utf-8")
    names = [f"host-{number}" for number in range(1, hosts + 1)]
    text = template.format(
        engine=ENGINES[engine].format(model_file=model_file) + (ON_HOSTS.format(names) if names else ""),
        idle_s=seconds * IDLE_SHARE,
        scale=TRACE_S / seconds,
    )
    if names:
        relays = ", ".join(f'{name} = "127.0.0.1:{free_port()}"' for name in names)
        text += f'\n[hosts]\nhead = "127.0.0.1:{free_port()}"\nrelays = {{ {relays} }}\n'
    configuration.write_text(text, encoding="utf-8")
    settings = load_fleet(str(configuration), env, machine=True)
    # A free port each: the demo must not fail for a server that somebody runs already.
    free = Address("127.0.0.1", 0)
    return replace(settings, gateway=replace(settings.gateway, listen=free, admin=free))


def _model_file(
    directory: Path, *, engine: str, size: str, env: Mapping[str, str], tell: Callable[[str], None]
) -> str:
    """Make the model, unless an earlier demo has; return its name in the directory."""
    own = engine == "llama.cpp"
    name = f"demo-{size}" + (".gguf" if own else "-transformers")
    target = directory / name
    if not target.exists():
        tell(f"making a random Llama model, {size} parameters: {target}")
        if own:
            make_model(target, size=size)
        else:
            make_transformers_model(target, env=env, size=size)
    return name
