"""The keys of a bridge: off by default, and every mistake is reported with its line."""

import pytest

from poorwill.config import load_fleet
from poorwill.config.manual import schema
from poorwill.core.settings import HostedSettings

from .conftest import TOY, Write, problems_of, read

LEADS = 'provider = "groq"\nmodel = "llama"\nurl = "https://api.groq.com/openai/v1"\nkey_env = "GROQ"\n'
HOSTED = TOY + "[models.toy.hosted]\n" + LEADS


def test_no_bridge_by_default(write: Write) -> None:
    hosted = read(write(HOSTED)).models[0].hosted
    assert hosted is not None and not hosted.bridge
    assert not HostedSettings(provider="a", model="b").bridge
    inline = read(write(TOY + 'hosted = { provider = "groq", model = "llama" }\n'))
    assert inline.models[0].hosted == HostedSettings(provider="groq", model="llama")


def test_a_whole_bridge_is_read(write: Write) -> None:
    prices = "input_usd_mtok = 0.59\noutput_usd_mtok = 0.79\nmax_output_tokens = 8192\n"
    text = HOSTED + 'bridge = true\nwhen = "failed"\n' + prices
    [model] = read(write(text), GROQ="sk-1").models
    assert model.hosted == HostedSettings(
        provider="groq",
        model="llama",
        bridge=True,
        url="https://api.groq.com/openai/v1",
        key_env="GROQ",
        when="failed",
        input_nusd_mtok=590_000_000,
        output_nusd_mtok=790_000_000,
        max_output_tokens=8192,
    )
    assert model.hosted.bridge_words == "bridge to groq/llama when a wake fails"


def test_the_bridge_key_must_be_set_to_serve(write: Write) -> None:
    path = write(HOSTED + "bridge = true\n")
    assert problems_of(path) == [
        "line 7: models.toy.hosted.key_env: GROQ is not set in the environment "
        "(export GROQ=..., or take bridge out)"
    ]
    for bad in ("two words", "sk-1\n", "schlüssel"):
        [problem] = problems_of(path, GROQ=bad)
        assert "GROQ does not hold an API key" in problem and bad not in problem
    assert load_fleet(str(path), {}, machine=False).models[0].hosted is not None
    assert problems_of(write(HOSTED)) == [], "no bridge, no key"


def test_all_missing_keys_are_reported(write: Write) -> None:
    text = TOY + 'hosted = { provider = "groq", model = "llama", bridge = true, input_usd_mtok = 1 }\n'
    told = problems_of(write(text))
    assert [problem.partition(": ")[2].partition(" (")[0] for problem in told] == [
        "models.toy.hosted.input_usd_mtok: is only half of a price",
        "models.toy.hosted.url: is missing: the bridge leads nowhere",
        "models.toy.hosted.key_env: is missing",
    ]
    assert all(problem.startswith("line 3: ") for problem in told)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('url = "api.groq.com"', "'api.groq.com' is not the URL of an API"),
        ('url = "https://me:secret@api.example"', "is not the URL of an API"),
        ('url = "https://api.example/v1?key=1"', "is not the URL of an API"),
        ('url = "http://api.example/v1"', "would send users' text and the API key in the clear"),
        ('key_env = "not a name"', "is not the name of an environment variable"),
        ('when = "always"', "'always' is not known"),
        ("bridge = 1", "must be true or false"),
    ],
)
def test_a_bad_value_is_reported(write: Write, line: str, told: str) -> None:
    key = line.partition(" ")[0]
    kept = [one for one in (HOSTED + "bridge = true\n").splitlines() if not one.startswith(key)]
    [problem] = problems_of(write("\n".join([*kept, line])), GROQ="sk-1")
    assert told in problem and f"models.toy.hosted.{key}" in problem


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost:9", "[::1]:9"])
def test_only_loopback_may_use_http(write: Write, host: str) -> None:
    text = HOSTED.replace("https://api.groq.com/openai", f"http://{host}") + "bridge = true\n"
    assert problems_of(write(text), GROQ="sk-1") == []


def test_limits_and_bridge_need_one_currency(write: Write) -> None:
    money = '[spend]\nday_usd = 1\n[[rates]]\nactive_usd_h = 1\ncurrency = "EUR"\n'
    assert problems_of(write(HOSTED + money), GROQ="sk-1") == []
    [problem] = problems_of(write(HOSTED + "bridge = true\n" + money), GROQ="sk-1")
    assert "the rates are in EUR and the bridge in USD" in problem


def test_editors_know_the_keys() -> None:
    models = schema()["properties"]["models"]["additionalProperties"]  # type: ignore[index]
    keys = models["properties"]["hosted"]["properties"]
    assert keys["bridge"]["type"] == "boolean" and keys["when"]["enum"] == ["waking", "failed"]
