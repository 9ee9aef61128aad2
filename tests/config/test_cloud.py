"""The keys of models on rented machines, and which of them exclude each other."""

import sys
from pathlib import Path

import pytest

from poorwill.config.machine_checks import cloud_cautions
from poorwill.config.rules.advice import advice
from poorwill.core.settings import CloudSettings, EngineUrl
from poorwill.core.words import Tier

from .conftest import Write, problems_of, read

BIG = """\
[models.big]
engine = "vllm"
ladder = ["hibernated", "cold"]
park_limit_s = 900
[models.big.cloud]
provider = "hyperstack"
id = "12345"
url = "http://203.0.113.7:8000"
key_env = "HYPERSTACK_API_KEY"
"""
KEY = {"HYPERSTACK_API_KEY": "secret"}


def test_a_rented_model_needs_no_path(write: Write):
    (model,) = read(write(BIG), **KEY).models
    assert model.cloud == CloudSettings(
        provider="hyperstack",
        machine="12345",
        engine=EngineUrl("203.0.113.7", 8000),
        key_env="HYPERSTACK_API_KEY",
    )
    assert model.replica.park.ladder == (Tier.HIBERNATED, Tier.COLD)


@pytest.mark.parametrize(
    ("url", "read_as", "shown"),
    [
        ("http://10.0.0.5:8000/", EngineUrl("10.0.0.5", 8000), "http://10.0.0.5:8000"),
        ("http://[2001:db8::7]:9000", EngineUrl("2001:db8::7", 9000), "http://[2001:db8::7]:9000"),
        ("http://gpu.example", EngineUrl("gpu.example", 80), "http://gpu.example"),
        ("https://gpu.example/", EngineUrl("gpu.example", 443, "", True), "https://gpu.example"),
        (
            "https://x.example:8443/a/b/",
            EngineUrl("x.example", 8443, "/a/b", True),
            "https://x.example:8443/a/b",
        ),
        ("https://x.example/a/v1", EngineUrl("x.example", 443, "/a", True), "https://x.example/a"),
    ],
)
def test_an_engines_address(write: Write, url: str, read_as: EngineUrl, shown: str):
    (model,) = read(write(BIG.replace("http://203.0.113.7:8000", url)), **KEY).models
    assert model.cloud is not None and model.cloud.engine == read_as
    assert str(model.cloud.engine) == shown


AWS = (
    BIG.replace('"hyperstack"', '"aws"')
    .replace('"12345"', '"eu-central-1/i-0123456789abcdef0"')
    .replace('key_env = "HYPERSTACK_API_KEY"\n', "")
)
GCP = AWS.replace('"aws"', '"gcp"').replace('"eu-central-1/i-0123456789abcdef0"', '"me-1/europe-west4-a/gpu"')


@pytest.mark.parametrize("text", [AWS, GCP])
@pytest.mark.parametrize("host", ["{public}", "{private}", "10.0.0.7"])
def test_an_sdk_needs_no_key_and_tells_addresses(write: Write, text: str, host: str):
    (model,) = read(write(text.replace("203.0.113.7", host)), HOME="/nowhere").models
    assert model.cloud is not None and model.cloud.engine == EngineUrl(host, 8000)


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (AWS, "eu-central-1/", "", "line 7: models.big.cloud.id: is not REGION/ID"),
        (AWS, "/i-0", "/vm-0", "line 7: models.big.cloud.id: is not REGION/ID"),
        (GCP, "me-1/", "", "line 7: models.big.cloud.id: is not PROJECT/ZONE/NAME"),
        (
            GCP,
            "me-1/",
            "../",
            "line 7: models.big.cloud.id: '../europe-west4-a/gpu' is not the id of a machine",
        ),
        (AWS, "203.0.113.7", "{elastic}", "line 8: models.big.cloud.url: 'http://{elastic}:8000' is not an"),
        (
            AWS,
            "[models.big.cloud]",
            '[models.big.cloud]\nkey_env = "KEY"',
            "line 6: models.big.cloud.key_env: is not for aws",
        ),
        (
            BIG,
            "203.0.113.7",
            "{public}",
            "line 8: models.big.cloud.url: {public} is not known of machines at",
        ),
        (BIG, "key_env", "# key_env", "line 5: models.big.cloud.key_env: is missing"),
    ],
)
def test_each_cloud_has_its_own_keys(write: Write, text: str, old: str, new: str, said: str):
    problems = problems_of(write(text.replace(old, new)), HYPERSTACK_API_KEY="secret", KEY="secret")
    assert any(problem.startswith(said) for problem in problems), problems


def test_a_missing_key_file_is_reported(write: Write):
    (problem,) = problems_of(write(GCP), GOOGLE_APPLICATION_CREDENTIALS="/nowhere/key.json")
    assert "GOOGLE_APPLICATION_CREDENTIALS names /nowhere/key.json, which is no file" in problem


def test_a_missing_extra_is_reported(write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.path", [])  # no pip either
    monkeypatch.delitem(sys.modules, "boto3", raising=False)
    problems = problems_of(write(AWS), HOME="/nowhere")
    assert problems == [
        "line 6: models.big.cloud.provider: aws needs the package boto3, which is not installed "
        "(pip install 'poorwill[aws]')"
    ]


@pytest.mark.parametrize(("text", "provider"), [(AWS, "aws"), (GCP, "gcp")])
def test_credentials_nowhere_are_a_warning(write: Write, tmp_path: Path, text: str, provider: str):
    fleet = read(write(text), HOME=str(tmp_path))
    (caution,) = cloud_cautions(fleet, {"HOME": str(tmp_path)})
    assert caution.what.startswith(f"no credentials for {provider} in the environment or in {tmp_path}/.")
    named = {"AWS_PROFILE": "me", "CLOUDSDK_CONFIG": "/etc/gcloud"}
    assert list(cloud_cautions(fleet, named)) == []
    for file in (".aws/config", ".config/gcloud/application_default_credentials.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert list(cloud_cautions(fleet, {"HOME": str(tmp_path)})) == []


def test_floating_addresses_are_no_clash(write: Write):
    two = AWS + AWS.replace("models.big", "models.other").replace("i-0", "i-1")
    assert problems_of(write(two.replace("203.0.113.7", "{public}")), HOME="/nowhere") == []
    what = "models.big.cloud.url: requests and answers go unencrypted to {public}, open to whoever reaches it"
    assert what in warned(write, AWS.replace("203.0.113.7", "{public}"))


BAD = [
    (
        'key_env = "HYPERSTACK_API_KEY"',
        'key_env = "HYPERSTACK_API_KEY"\nurl_ca = "ours.pem"',
        "line 10: models.big.cloud.url_ca: is for https alone",
    ),
    (
        'url = "http://203.0.113.7:8000"',
        'url = "http://9.9.9.9:8000"\nurl_key_env = "HYPERSTACK_API_KEY"',
        "line 8: models.big.cloud.url: would send the engine's key in the clear",
    ),
    (
        'provider = "hyperstack"',
        'provider = "hyperstack"\napi = "http://cloud.example/v1"',
        "line 7: models.big.cloud.api: would send the API key in the clear",
    ),
    (
        "http://203.0.113.7:8000",
        "http://203.0.113.7:99999",
        "line 8: models.big.cloud.url: 'http://203.0.113.7:99999' is not an engine's address",
    ),
    (
        '"http://203.0.113.7:8000"',
        "8000",
        "line 8: models.big.cloud.url: must be an address, not a whole number",
    ),
    (
        '"12345"',
        "12345",
        "line 7: models.big.cloud.id: must be the id of a machine, not a whole number",
    ),
    (
        '"12345"',
        '"../1"',
        "line 7: models.big.cloud.id: '../1' is not the id of a machine",
    ),
    (
        '"hyperstack"',
        '"scaleway"',
        "line 7: models.big.cloud.id: has no zone",
    ),
    (
        '"12345"',
        '"fr-par-2/12345"',
        "line 7: models.big.cloud.id: is a number, without anything before it",
    ),
    (
        '"hyperstack"',
        '"hyperstak"',
        "line 6: models.big.cloud.provider: 'hyperstak' is not known",
    ),
    (
        'id = "12345"\n',
        "",
        "line 5: models.big.cloud.id: is missing",
    ),
    (
        '"hibernated", "cold"',
        '"asleep", "frozen", "cold"',
        "line 3: models.big.ladder: asleep and frozen cannot be done on a rented machine",
    ),
    (
        "park_limit_s = 900",
        'path = "Qwen/Qwen3-8B"\noptions = { sleep = true }',
        "line 4: models.big.path: is not for a model on a rented machine",
    ),
    (
        "park_limit_s = 900",
        "port = 8000",
        "line 4: models.big.port: is not for a model on a rented machine",
    ),
    (
        '"vllm"',
        '"ollama"',
        "line 1: models.big.engine_model: is missing",
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), BAD)
def test_bad_cloud_keys_are_reported(write: Write, old: str, new: str, said: str):
    problems = problems_of(write(BIG.replace(old, new)), **KEY)
    assert any(problem.startswith(said) for problem in problems), problems


def test_the_cloud_key_must_be_set(write: Write):
    (problem,) = problems_of(write(BIG))
    assert problem == (
        "line 9: models.big.cloud.key_env: HYPERSTACK_API_KEY is not set in the environment "
        "(export HYPERSTACK_API_KEY=..., the API key of hyperstack)"
    )


def test_a_machine_holds_one_replica(write: Write):
    two = BIG + BIG.replace("models.big", "models.other").replace('"12345"', '"12346"')
    (problem,) = problems_of(write(two), **KEY)
    assert problem == (
        "line 17: models.other.cloud.url: 203.0.113.7:8000 belongs to model big already "
        "(one machine holds one replica)"
    )
    two = BIG + BIG.replace("models.big", "models.other").replace("203.0.113.7", "203.0.113.8")
    (problem,) = problems_of(write(two), **KEY)
    assert "line 16: models.other.cloud.id: hyperstack 12345 belongs to model big" in problem


def test_engine_defaults_skip_rented_models(write: Write):
    defaults = '[defaults]\nargs = ["--fast"]\nenv = { A = "b" }\n'
    assert problems_of(write(defaults + BIG), **KEY) == []


def warned(write: Write, text: str) -> list[str]:
    fleet = read(write(text + "[[rates]]\nactive_usd_h = 2\n"), **KEY)
    return [f"{problem.where}: {problem.what}" for problem in advice(fleet)]


def test_short_limits_and_open_addresses_warn(write: Write):
    assert warned(write, "[fleet]\nexit_s = 900\n" + BIG) == []
    text = BIG.replace("park_limit_s = 900\n", "").replace("203.0.113.7", "8.8.8.8")
    assert warned(write, text) == [
        "models.big.park_limit_s: 120 s is short for a hibernation, which takes minutes",
        "models.big.cloud.url: requests and answers go unencrypted to 8.8.8.8, open to whoever reaches it",
        "fleet.exit_s: 60 s is short for a hibernation, which takes minutes",
    ]


def test_hibernated_needs_a_cloud(write: Write):
    text = '[models.toy]\nengine = "toy"\nladder = ["hibernated", "cold"]\n'
    assert warned(write, text) == [
        "models.toy.ladder: hibernated is skipped: the model is on no rented machine"
    ]
