"""Models whose engine somebody else runs: `url` in the model's own table."""

import pytest

from poorwill.config.rules.advice import advice
from poorwill.core.settings import Address, EngineUrl
from poorwill.core.words import Tier

from .conftest import Write, problems_of, read

ELSEWHERE = """\
[models.big]
url = "https://gpu.example/a"
"""


def test_an_engine_elsewhere_is_always_ready(write: Write):
    (model,) = read(write(ELSEWHERE)).models
    assert model.away is not None and model.away.engine == EngineUrl("gpu.example", 443, "/a", True)
    assert (model.engine.kind, model.engine.cwd, model.floor.always) == ("command", "", True)
    assert advice(read(write(ELSEWHERE + "[[rates]]\nactive_usd_h = 1\n"))) == []


def test_defaults_of_engines_here_are_not_for_it(write: Write):
    defaults = '[defaults]\nengine = "llama.cpp"\nladder = ["frozen", "cold"]\n'
    defaults += 'policy = { name = "fixed", idle_s = 300, rungs_s = { cold = 900 } }\nfloor = false\n'
    (model,) = read(write(defaults + ELSEWHERE)).models
    assert (model.engine.kind, model.replica.park.ladder) == ("command", (Tier.COLD,))
    assert model.floor.always and model.policy.name == "break-even"


def test_one_that_is_lost_is_looked_for_soon(write: Write):
    (model,) = read(write("[defaults]\nwake_backoff_max_s = 1200\n" + ELSEWHERE)).models
    assert model.replica.wake.backoff_max_us == 30_000_000
    (model,) = read(write(ELSEWHERE + "wake_backoff_s = 60\nwake_backoff_max_s = 90\n")).models
    assert (model.replica.wake.backoff_us, model.replica.wake.backoff_max_us) == (60_000_000, 90_000_000)


def test_its_kind_can_be_said(write: Write):
    (model,) = read(write(ELSEWHERE + 'engine = "vllm"\n')).models
    assert (model.engine.kind, model.replica.max_concurrency) == ("vllm", 0)


def test_two_models_share_a_host_and_no_address(write: Write):
    both = read(write(ELSEWHERE + ELSEWHERE.replace("big", "small").replace("/a", "/b"))).models
    assert [model.away_at for model in both] == [
        Address("big@gpu.example", 443),
        Address("small@gpu.example", 443),
    ]


def test_what_it_costs_it_costs_always(write: Write):
    rates = '[[rates]]\nmodel = "big"\nactive_usd_h = 2\n[[rates]]\nactive_usd_h = 3\n'
    own, others = read(write(ELSEWHERE + rates)).rates
    assert own.parked_nusd_h == {Tier.COLD: 2 * 10**9} and others.parked_nusd_h == {}
    stated = rates.replace("= 2\n", "= 2\nparked_usd_h = { cold = 1 }\n")
    assert read(write(ELSEWHERE + stated)).rates[0].parked_nusd_h == {Tier.COLD: 10**9}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('ladder = ["asleep", "cold"]', "ladder: is for engines that poorwill parks"),
        ("floor = false", "floor: is for engines that poorwill parks"),
        ("replicas = 2", "replicas: is for engines that poorwill parks"),
        ('command = ["vllm"]', "command: is not for a model with a url"),
        ("port = 8000", "port: is not for a model with a url"),
        ('env = { A = "b" }', "env: is not for a model with a url"),
        ("gpus = 1", "gpus: is for this machine, and the model is on another one"),
        ('url_key_env = "NOT_SET"', "url_key_env: NOT_SET is not set in the environment"),
        ('url_ca = "none.pem"', "url_ca: no such file"),
    ],
)
def test_keys_that_do_not_fit(write: Write, line: str, said: str):
    problems = problems_of(write(ELSEWHERE + line + "\n"))
    assert any(problem.startswith(f"line 3: models.big.{said}") for problem in problems), problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[models.a]\npath = "m.gguf"\nurl_key_env = "KEY"\n', "url_key_env: is for a model with a url"),
        ('[models.a]\nurl = "http://8.8.8.8"\nurl_key_env = "KEY"\n', "url: would send the engine's key"),
        ('[models.a]\nurl = "http://{public}:80"\n', "url: {public} is for rented machines"),
        ('[models.a]\nurl = "http://gpu:80"\nurl_ca = "ca.pem"\n', "url_ca: is for https alone"),
        ('[models.a]\nurl = "gpu:80"\n', "url: 'gpu:80' is not an engine's address"),
    ],
)
def test_addresses_that_do_not_fit(write: Write, text: str, said: str):
    problems = problems_of(write(text), KEY="k")
    assert any(f"models.a.{said}" in problem for problem in problems), problems
