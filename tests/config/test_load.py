"""A good file is read; every problem of a bad one is reported at once, with its line."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poorwill.config import load_fleet
from poorwill.core.problems import ConfigFault
from poorwill.core.settings import (
    EngineName,
    EngineSettings,
    FleetSettings,
    FloorWindow,
    HostedSettings,
    PolicySettings,
    RateSettings,
)
from poorwill.core.words import SECOND_US, Phase, Tier
from poorwill.engines.kinds import ENGINE_KINDS
from poorwill.engines.recipes import llamacpp, toy

from .conftest import TOY, Write, problems_of, read


def test_the_smallest_file_has_the_defaults(write: Write, tmp_path: Path) -> None:
    fleet = read(write(TOY))
    model = fleet.models[0]
    assert fleet.directory == str(tmp_path)
    assert fleet.source == "fleet.toml"
    assert fleet == FleetSettings(directory=str(tmp_path), models=fleet.models)
    assert model.engine == EngineSettings(kind="toy")
    assert model.replica.model == model.name == "toy"
    assert model.replica.park.ladder == (Tier.COLD,)


FULL = """\
[fleet]
directory = "state"
on_exit = "leave"
exit_s = 7.5
snapshot_quota = "1.5 GiB"
memory = 1000
reap_orphans = true

[gateway]
listen = "[::1]:0"
admin = ":9999"
heartbeat_s = 2
max_body = "1 MB"

[models."org/model-7b.Q4"]
path = "m.gguf"
args = ["--flash"]
options = { gpu_layers = 8, fast = true, ratio = 0.5 }
ladder = ["asleep", "frozen", "cold"]
phase_limits_s = { weights = 90 }
hosted = { provider = "openai", model = "gpt-x" }
memory = 900
gpu_memory = "20 GiB"
on = ["GPU-8932f937", "0", "big:1"]
priority = -3
[models."org/model-7b.Q4".policy]
name = "fixed"
idle_s = 0.25
rungs_s = { frozen = 60, cold = 3600 }
wait_usd_s = "0.000000001"
shadow = "adaptive"
[[models."org/model-7b.Q4".floor]]
days = "fri-mon"
from = "08:30"
to = 24:00:00
zone = "Europe/Berlin"
name = "shop"

[[devices]]
index = 0
uuid = "GPU-8932f937-d72c"
memory = "80 GiB"
[[devices]]
index = 1

[[rates]]
active_usd_h = 0.1
[[rates]]
effective = 2026-03-01T12:00:00+02:00
active_usd_h = "2.99"
parked_usd_h = { frozen = 0.01 }
increment_s = 60
model = "org/model-7b.Q4"

[spend]
day_usd = 5
model_day_usd = { "org/model-7b.Q4" = 4.5 }
""".replace("24:00:00", '"24:00"')


def test_values_arrive_in_core_units(write: Write, tmp_path: Path) -> None:
    fleet = read(write(FULL), K="secret")
    (model,) = fleet.models
    assert fleet.directory == str(tmp_path / "state")
    assert (fleet.on_exit, fleet.exit_us, fleet.reap_orphans) == ("leave", 7_500_000, True)
    assert (fleet.snapshot_quota_bytes, fleet.memory_bytes) == (3 * 2**29, 1000)
    assert fleet.gateway.listen == ("::1", 0)
    assert fleet.gateway.admin == ("0.0.0.0", 9999)
    assert fleet.gateway.max_body_bytes == 1_000_000
    assert model.engine == EngineSettings(
        kind="llama.cpp",
        path=str(tmp_path / "m.gguf"),
        args=("--flash",),
        options={"gpu_layers": 8, "fast": True, "ratio": 0.5},
    )
    assert model.replica.wake.phase_limits_us == {Phase.WEIGHTS: 90 * SECOND_US}
    assert model.policy == PolicySettings(
        name="fixed",
        idle_us=250_000,
        rungs_us={Tier.FROZEN: 60 * SECOND_US, Tier.COLD: 3600 * SECOND_US},
        wait_nusd_s=1,
        shadow="adaptive",
    )
    window = FloorWindow(days=(0, 4, 5, 6), start_minute=510, end_minute=0, zone="Europe/Berlin", name="shop")
    assert model.floor.windows == (window,)
    assert model.hosted == HostedSettings(provider="openai", model="gpt-x")
    assert fleet.rates == (
        RateSettings(effective_us=0, active_nusd_h=100_000_000),
        RateSettings(
            effective_us=1_772_359_200 * SECOND_US,
            active_nusd_h=2_990_000_000,
            parked_nusd_h={Tier.FROZEN: 10_000_000},
            increment_us=60 * SECOND_US,
            model=model.name,
        ),
    )
    assert fleet.spend.model_day_nusd == {"org/model-7b.Q4": 4_500_000_000}


def test_defaults_complete_each_model(write: Write) -> None:
    fleet = read(
        write("""\
[defaults]
engine = "toy"
wake_budget_s = 9
policy = { name = "fixed", idle_s = 3 }
hold = { count = 5, age_s = 60 }
env = { A = "1", B = "1" }
[models.a]
[models.b]
wake_budget_s = 8
policy = "break-even"
hold.count = 0
env.B = "2"
""")
    )
    a, b = fleet.models
    assert a.engine == EngineSettings(kind="toy", env={"A": "1", "B": "1"})
    assert b.engine.env == {"A": "1", "B": "2"}
    assert (a.replica.wake.budget_us, b.replica.wake.budget_us) == (9_000_000, 8_000_000)
    assert (a.replica.hold.count, b.replica.hold.count) == (5, 0)
    assert a.replica.hold.age_us == b.replica.hold.age_us == 60_000_000
    assert a.policy.idle_us == 3_000_000
    assert b.policy == PolicySettings(name="break-even"), "a policy is replaced as a whole"


def test_all_problems_are_reported_at_once(write: Write) -> None:
    found = problems_of(
        write("""\
[fleet]
on_exit = "parc"
listen = "127.0.0.1:0"
[gateway]
heartbeat = 3
[defaults]
wake_budget_s = "a while"
[models.llama]
path = "m.gguf"
laddr = ["cold"]
ladder = ["cold", "frozen"]
policy = "fixed"
[models.b]
engine = "command"
command = ["sh", "serve"]
drain_s = -1
[modls.c]
[[rates]]
model = "lama"
active_usd_h = 1
""")
    )
    expected = [
        "line 2: fleet.on_exit: 'parc' is not known (did you mean 'park'?)",
        "line 3: fleet.listen: unknown key (it belongs under [gateway])",
        "line 5: gateway.heartbeat: unknown key (did you mean 'heartbeat_s'?)",
        "line 7: defaults.wake_budget_s: must be a number of seconds, not text "
        '(write seconds, or text such as "5m" or "1h 30m")',
        "line 10: models.llama.laddr: unknown key (did you mean 'ladder'?)",
        "line 11: models.llama.ladder: must go from shallow to deep, each tier once (write frozen, cold)",
        "line 8: models.llama.policy.idle_s: is missing",
        "line 15: models.b.command: has no {port}",
        "line 16: models.b.drain_s: -1 s is out of range",
        "line 17: modls: unknown table (did you mean 'models'?)",
        "line 19: rates[0].model: 'lama' is no model here (did you mean 'llama'?)",
    ]
    assert len(found) == len(expected), found
    for start in expected:
        start = start.replace("line 8: models.llama.policy", "line 12: models.llama.policy")
        assert any(one.startswith(start) for one in found), (start, found)


def test_every_bad_rate_is_reported(write: Write) -> None:
    bad = '[[rates]]\nactive_usd_h = "free"\n[[rates]]\nactive_usd_h = 1\nmodel = "toi"\n'
    found = problems_of(write(TOY + bad))
    assert [one.partition(" (")[0] for one in found] == [
        "line 4: rates[0].active_usd_h: must be an amount of dollars, not 'free'",
        "line 7: rates[1].model: 'toi' is no model here",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "models: no model is configured (write [models.NAME])"),
        ("[models]\n", "line 1: models: no model is configured"),
        ("models = 3\n", "line 1: models: must be tables, not a whole number"),
        ("rates = {}\n" + TOY, "line 1: rates: must be a list of tables, not a table"),
        ("gateway = []\n" + TOY, "line 1: gateway: must be a table, not a list"),
        (TOY + "port = true", "line 3: models.toy.port: must be a whole number, not true or false"),
        (TOY + "port = 65536", "line 3: models.toy.port: 65536 is out of range (from 0 to 65535)"),
        (TOY + "context = 0", "line 3: models.toy.context: 0 is out of range"),
        (TOY + "wake_budget_s = 0", "line 3: models.toy.wake_budget_s: 0 s is out of range"),
        (TOY + "wake_budget_s = nan", "line 3: models.toy.wake_budget_s: must be a number"),
        (TOY + "wake_budget_s = inf", "line 3: models.toy.wake_budget_s: must be a number"),
        (TOY + "wake_budget_s = 1e-9", "line 3: models.toy.wake_budget_s: 1E-9 s is less than"),
        (TOY + "wake_budget_s = 901", "line 1: models.toy.wake_cap_s: 900 s is less than wake_budget"),
        (TOY + "wake_cap_s = 1", "line 3: models.toy.wake_cap_s: 1 s is less than wake_budget_s, 300 s"),
        (TOY + "wake_backoff_s = 901", "line 1: models.toy.wake_backoff_max_s: 900 s is less"),
        (TOY + "phase_limits_s = {weights=901}", "line 3: models.toy.phase_limits_s.weights: 901 s is"),
        (TOY + "phase_limits_s = {wieghts=9}", "line 3: models.toy.phase_limits_s.wieghts: unknown"),
        (TOY + 'memory = "4 XB"', "line 3: models.toy.memory: '4 XB' is not a size"),
        (TOY + "memory = 1.5", "line 3: models.toy.memory: must be a size, not a number"),
        (TOY + "memory = 9\n[fleet]\nmemory = 8", "line 3: models.toy.memory: is more than the whole"),
        (
            TOY + "memory = 5\nreplicas = 2\nmax_concurrency = 1\n[fleet]\nmemory = 8",
            "line 4: models.toy.replicas: need more than the whole fleet's memory",
        ),
        (TOY + "replicas = 2", "models.toy.max_concurrency: is missing: one replica would take everything"),
        (TOY + "replicas = 0", "line 3: models.toy.replicas: 0 is out of range (from 1 to 64)"),
        (
            TOY + "max_concurrency = 1\nreplicas = { most = 2, least_ready = 3 }",
            "line 4: models.toy.replicas.least_ready: is more than there are: 2",
        ),
        (
            TOY + "max_concurrency = 1\nreplicas = 2\nport = 9000",
            "line 5: models.toy.port: is of one replica only",
        ),
        (
            TOY + 'floor = [{ from = "09:00", to = "10:00", floor = 2 }]',
            "line 3: models.toy.floor: window 1 wants 2 ready; there are 1",
        ),
        (TOY + "ladder = []", "line 3: models.toy.ladder: must not be empty"),
        (TOY + 'ladder = ["frozen"]', 'line 3: models.toy.ladder: must end in "cold"'),
        (TOY + 'ladder = ["cold", "cold"]', "line 3: models.toy.ladder: must go from shallow to deep"),
        (TOY + 'ladder = ["frosen", "cold"]', "line 3: models.toy.ladder[0]: 'frosen' is not known (d"),
        (TOY + 'policy = "fixd"', "line 3: models.toy.policy: 'fixd' is not known (did you mean 'fixe"),
        (TOY + "policy = {idle_s = 3}", 'line 3: models.toy.policy.idle_s: is only for name = "fixed"'),
        (TOY + 'policy = {name="fixed",idle_s=3,rungs_s={cold=4}}', "is the first tier"),
        (
            TOY + 'ladder=["frozen","cold"]\npolicy = {name="fixed",idle_s=3,rungs_s={cold=3}}',
            "line 4: models.toy.policy.rungs_s.cold: 3 s is not after idle_s, 3 s",
        ),
        (
            TOY + 'policy = {name="fixed",idle_s=3,rungs_s={frozen=4}}',
            "line 3: models.toy.policy.rungs_s.frozen: is not on the ladder (the ladder is cold)",
        ),
        (TOY + "floor = 1", "line 3: models.toy.floor: must be true or false, a list of tables"),
        (TOY + 'floor = [{from="08:00"}]', "line 3: models.toy.floor[0].to: is missing"),
        (TOY + 'floor = [{from="8h",to="9:00"}]', "line 3: models.toy.floor[0].from: '8h' is not a time"),
        (TOY + 'floor=[{from="25:00",to="9:00"}]', "line 3: models.toy.floor[0].from: '25:00' is not"),
        (TOY + 'floor=[{from="24:30",to="9:00"}]', "'24:30' is not a time of day (the last one is 24:00)"),
        (TOY + "floor=[{from=08:00:30,to=09:00:00}]", "08:00:30 is finer than a minute"),
        (TOY + '[[models.toy.floor]]\ndays="mo-fr"', "models.toy.floor[0].days: 'mo-fr' is not a day"),
        (TOY + '[[models.toy.floor]]\n\nzone="Mars/X"', "line 5: models.toy.floor[0].zone: 'Mars/X' is"),
        (TOY + 'hosted = {model="x"}', "line 3: models.toy.hosted.provider: is missing"),
        (TOY + 'command = ["x"]', "line 3: models.toy.command: is not for the engine toy"),
        (TOY + 'ready_path = "health"', "'health' is not a path that begins with /"),
        (TOY + 'env = {A = 1}', "line 3: models.toy.env.A: must be text, not a whole number"),
        (TOY + 'env = {A = "a\\u0000"}', "line 3: models.toy.env.A: must not contain a NUL"),
        (TOY + "options = {a = []}", "line 3: models.toy.options.a: must be text, a number"),
        (TOY + "wake_budget = 3", "line 3: models.toy.wake_budget: unknown key (did you mean 'wake_budg"),
        (
            TOY + '[[rates]]\nactive_usd_h="$1"\ncurrency="EUR"\nsource="$"',
            "rates[0].active_usd_h: is in dollars, but the currency of its rate is EUR (write 0.35: amounts",
        ),
        (
            TOY + '[[rates]]\nactive_usd_h="1"\ncurrency="EUR"\n[spend]\nmodel_day_usd={toy="$2"}',
            "spend.model_day_usd: is in dollars",
        ),
        (TOY + "wake_budget_ms = 3", "unknown key (did you mean 'wake_budget_s'?)"),
        ("[models.x]\n", "line 1: models.x.path: is missing (name the model's GGUF file)"),
        ('[models.x]\nengine="vllm"', "models.x.path: is missing (name the model's directory"),
        ('[models.x]\nengine="ollama"', "models.x.engine_model: is missing"),
        ('[models.x]\nengine="command"', "models.x.command: is missing"),
        ('[models.x]\npath="no.gguf"', "line 2: models.x.path: no such file: "),
        ('[models.x]\npath="."', "is a directory, not a regular file (llama.cpp needs one GGUF file)"),
        ('[models.x]\npath="fleet.toml"', "fleet.toml is no GGUF file"),
        ('[models.x]\nengine="vllm"\npath="./none"', "line 3: models.x.path: no such file"),
        ('[models.x]\nengine="command"\ncommand=["no-such-program-x","{port}"]', "no program 'no-such"),
        ('[models."a b"]\nengine="toy"', 'line 1: models."a b": is not a name for a model'),
        (TOY + "[models.toy]\n", "line 3: column 12: cannot declare models.toy twice"),
        ("[gateway]\nlisten=8080\n" + TOY, 'must be an address, not a whole number (write "127.0.0.1:8080")'),
        ('[gateway]\nlisten="::1:80"\n' + TOY, "put IPv6 in brackets"),
        ('[gateway]\nlisten="localhost"\n' + TOY, "'localhost' has no port from 0 to 65535"),
        ('[gateway]\nlisten="a b:1"\n' + TOY, "'a b' is not a host"),
        ('[gateway]\nadmin="127.0.0.1:8080"\n' + TOY, "port 8080 is used twice (gateway.listen has it)"),
        (TOY + "port = 8081", "line 3: models.toy.port: port 8081 is used twice (gateway.admin has it)"),
        ("[[rates]]\n" + TOY, "line 1: rates[0].active_usd_h: is missing"),
        ("[[rates]]\nactive_usd_h=-1\n" + TOY, "line 2: rates[0].active_usd_h: -1 is out of range"),
        ('[[rates]]\nactive_usd_h="3 EUR"\n' + TOY, "must be an amount of dollars, not '3 EUR'"),
        ("[[rates]]\nactive_usd_h=1e-10\n" + TOY, "1E-10 is finer than a nano-dollar"),
        ("[[rates]]\nactive_usd_h=0.99999999999999999999999999999999999\n" + TOY, "finer than a nano"),
        ("[[rates]]\nactive_usd_h=1e-999999999\n" + TOY, "finer than a nano-dollar"),
        ('[[rates]]\nactive_usd_h=1\neffective="01/02/26"\n' + TOY, "'01/02/26' is not an ISO date"),
        ("[[rates]]\nactive_usd_h=1\neffective=1969-01-01\n" + TOY, "1969-01-01 is before 1970"),
        ("[[rates]]\nactive_usd_h=1\n" * 2 + TOY, "line 3: rates[1]: takes effect together with rates[0]"),
        ("[[rates]]\nactive_usd_h=1\nparked_usd_h={frozn=1}\n" + TOY, "did you mean 'frozen'?"),
        (
            "[spend]\nmodel_day_usd={tyo=1}\n" + TOY + "[[rates]]\nactive_usd_h=1\n",
            "line 2: spend.model_day_usd.tyo: is no model here",
        ),
        ("[spend]\nday_usd=2\n" + TOY, "line 1: spend: limits nothing: no time has a price"),
        (
            "[spend]\nday_usd=2\n[[rates]]\nactive_usd_h=1\n"
            '[[rates]]\nactive_usd_h=1\nmodel="toy"\ncurrency="EUR"\n' + TOY,
            "limits sums of money, but the rates are in EUR and USD",
        ),
        ("[spend]\nwarn_share=2\n" + TOY, "must be a number from 0 to 1, not 2"),
        ('[fleet]\nencrypt_key_env="NOPE"\n' + TOY, "line 2: fleet.encrypt_key_env: NOPE is not set"),
        ('[fleet]\ndirectory="fleet.toml"\n' + TOY, "fleet.toml is not a directory"),
        ('[fleet]\nreap_orphans="true"\n' + TOY, "must be true or false, not text (write true without"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_problem(write: Write, text: str, expected: str) -> None:
    found = problems_of(write(text), PATH="/usr/bin:/bin")
    assert len([one for one in found if expected in one]) == 1, found
    ignored = "is missing" if "floor" in text else None
    assert len([one for one in found if ignored is None or ignored not in one]) <= 1, found


def test_the_encryption_key_must_be_set(write: Write) -> None:
    path = write(TOY + '[fleet]\nencrypt_key_env="EK"\n')
    assert len(problems_of(path)) == 1
    assert problems_of(path, EK="2") == []
    assert load_fleet(str(path), {}, machine=False).encrypt_key_env == "EK"


def test_other_verbs_need_no_model_file(write: Write) -> None:
    path = write('[models.x]\npath="moved.gguf"\n')
    assert len(problems_of(path)) == 1
    assert load_fleet(str(path), {}, machine=False).models[0].name == "x"


def test_paths_are_relative_to_the_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "h.gguf").write_bytes(b"GGUF")
    path = write('[models.x]\npath="~/h.gguf"\n[models.y]\npath="./a/../m.gguf"\n')
    x, y = read(path, HOME=str(tmp_path / "home")).models
    assert x.engine.path == str(tmp_path / "home" / "h.gguf")
    assert y.engine.path == str(tmp_path / "m.gguf")


def test_a_hub_id_is_no_path_unless_it_exists(write: Write, tmp_path: Path) -> None:
    path = write('[models.x]\nengine="vllm"\npath="Qwen/Qwen3-0.6B"\n')
    assert read(path).models[0].engine.path == "Qwen/Qwen3-0.6B"
    (tmp_path / "Qwen" / "Qwen3-0.6B").mkdir(parents=True)
    assert read(path).models[0].engine.path == str(tmp_path / "Qwen" / "Qwen3-0.6B")


def test_syntax_errors_hide_nothing_below(write: Write) -> None:
    found = problems_of(
        write("""\
[models.a
engine = "toy"
[models.b]
engine = "toy"
path = m.gguf
reap = True
wake_budget_s = 5m
port = 99999
[models.b]
[fleet]
on_exit = "parc"
""")
    )
    assert [one.split(":")[0] for one in found] == [f"line {n}" for n in (1, 5, 6, 7, 8, 9, 11)]
    assert "put text in quotes" in found[1]
    assert "lower case" in found[2]


def test_an_unclosed_bracket_is_one_problem(write: Write) -> None:
    found = problems_of(write(TOY + 'ladder = ["cold"\nport = 1\n[fleet]\non_exit = "park"\n'))
    assert found == ["line 4: column 1: unclosed array"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a = [\n" * 3000, "invalid value"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
        (b"a = 1" + b"0" * 5000, "4300 digits"),
        (b"a = 1e99999999999999999999", ""),
        (b"\x00", "line 1"),
        (b'a = """', "line 1"),
    ],
)
def test_hostile_bytes_are_a_problem(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_bytes(data)
    found = problems_of(path)
    assert found
    assert expected in found[0].lower() or expected in found[0], found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_file_never_crashes(write: Write, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FULL)))
    cut = data.draw(st.integers(0, 12))
    junk = data.draw(st.text(st.sampled_from("[]{}=\"'#.,\n\\ -0e9aT:\0é"), max_size=6))
    damaged = FULL[:at] + junk + FULL[at + cut :]
    for text in (FULL[:at], damaged):
        for problem in problems_of(write(text), K="secret"):
            assert problem


def test_unknown_engine_options_are_reported(write: Write) -> None:
    known = {"toy": toy.OPTIONS, "vllm": None, "command": {}, "llama.cpp": llamacpp.OPTIONS}
    text = TOY + "options = { load_secnds = 1, slots = 2 }\n"
    text += '[models.v]\nengine = "vllm"\npath = "a/b"\noptions = { anything = 1 }\n'
    text += '[models.c]\nengine = "command"\ncommand = ["sh", "{port}"]\noptions = { x = 1 }\n'
    with pytest.raises(ConfigFault) as caught:
        load_fleet(str(write(text)), {"PATH": "/bin"}, engine_options=known)
    assert [str(problem) for problem in caught.value.problems] == [
        "line 3: models.toy.options.load_secnds: the engine toy has no such option "
        "(did you mean 'load_seconds'?)",
        "line 11: models.c.options.x: the engine command has no such option (it takes none; use args)",
    ]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("flood_log = true", "must be a whole number, not true"),
        ("slots = 1.5", "must be a whole number, not 1.5"),
        ("load_seconds = 'long'", 'must be a number, not "long"'),
        ("hang = 1", "must be true or false, not 1"),
    ],
)
def test_a_bad_option_names_the_right_type(write: Write, option: str, told: str) -> None:
    text = TOY + f"options = {{ {option} }}\n"
    with pytest.raises(ConfigFault) as caught:
        load_fleet(str(write(text)), {}, engine_options={"toy": toy.OPTIONS})
    name = option.partition(" ")[0]
    assert [str(p) for p in caught.value.problems] == [f"line 3: models.toy.options.{name}: {told}"]


def test_an_option_with_few_values_lists_them(write: Write) -> None:
    text = '[models.m]\npath = "m.gguf"\noptions = { load_mode = "fast", threads = 2 }\n'
    with pytest.raises(ConfigFault) as caught:
        load_fleet(str(write(text)), {}, machine=False, engine_options={"llama.cpp": llamacpp.OPTIONS})
    (problem,) = caught.value.problems
    assert '"mmap"' in problem.what and 'not "fast"' in problem.what


def test_the_listed_engines_exist() -> None:
    assert set(get_args(EngineName)) == set(ENGINE_KINDS)


def test_a_missing_file_names_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigFault) as caught:
        load_fleet(str(tmp_path / "none.toml"), {})
    assert "poorwill init" in str(caught.value.problems[0])
    with pytest.raises(ConfigFault):
        load_fleet(str(tmp_path), {})


@pytest.mark.parametrize(
    ("keys", "limit"),
    [
        ('engine = "llama.cpp"\npath = "m.gguf"', 4),
        ('engine = "llama.cpp"\npath = "m.gguf"\noptions = { parallel = 9 }', 9),
        ('engine = "llama.cpp"\npath = "m.gguf"\nmax_concurrency = 0', 0),
        ('engine = "llama.cpp"\npath = "m.gguf"\nmax_concurrency = 2', 2),
        ('engine = "toy"', 0),
        ('engine = "vllm"\npath = "a/b"', 0),
        ('engine = "vllm"\npath = "a/b"\noptions = { max_num_seqs = 64 }', 64),
        ('engine = "sglang"\npath = "a/b"\noptions = { max_running_requests = 8 }', 8),
        ('engine = "transformers"\npath = "a/b"', 1),
        ('engine = "transformers"\npath = "a/b"\noptions = { continuous_batching = true }', 0),
        ('engine = "ollama"\nengine_model = "q"', 1),
        ('engine = "ollama"\nengine_model = "q"\nenv = { OLLAMA_NUM_PARALLEL = "3" }', 3),
        ('engine = "ollama"\nengine_model = "q"\nmax_concurrency = 0', 0),
    ],
)
def test_engine_gets_what_it_works_on(write: Write, tmp_path: Path, keys: str, limit: int) -> None:
    (tmp_path / "m.gguf").touch()
    (model,) = read(write(f"[models.m]\n{keys}\n")).models
    assert model.replica.max_concurrency == limit


def test_a_command_runs_beside_the_file(write: Write, tmp_path: Path) -> None:
    command = '[models.{name}]\nengine = "command"\ncommand = ["sh", "{{port}}"]\n{more}\n'
    (tmp_path / "other").mkdir()
    text = command.format(name="a", more="") + command.format(name="b", more='cwd = "other"')
    text += '[models.c]\nengine = "toy"\n'
    fleet = load_fleet(str(write(text)), {"PATH": "/bin:/usr/bin"})
    assert [model.engine.cwd for model in fleet.models] == [str(tmp_path), str(tmp_path / "other"), ""]


def test_a_directory_to_run_in_must_be_there(write: Write) -> None:
    text = '[models.a]\nengine = "command"\ncommand = ["sh", "{port}"]\ncwd = "none"\n'
    with pytest.raises(ConfigFault) as fault:
        load_fleet(str(write(text + '[models.b]\nengine = "toy"\ncwd = "."\n')), {"PATH": "/bin:/usr/bin"})
    told = [f"{one.where}: {one.what}" for one in fault.value.problems]
    assert any("models.a.cwd: no such directory" in one for one in told), told
    assert any("models.b.cwd: is not for the engine toy" in one for one in told), told


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("3.8", 3_800_000_000),
        ('"$3.80"', 3_800_000_000),
        ('"$ 1,250.5"', 1_250_500_000_000),
        ('"0.35"', 350_000_000),
    ],
)
def test_money_is_read_as_meant(write: Write, written: str, read_as: int):
    (rate,) = read(write(f"{TOY}[[rates]]\nactive_usd_h = {written}\n")).rates
    assert rate.active_nusd_h == read_as


@pytest.mark.parametrize(
    ("written", "seconds"), [("300", 300), ('"5m"', 300), ('"1h 30m"', 5400), ('"90"', 90), ('"0.5 s"', 0.5)]
)
def test_durations_are_read_as_meant(write: Write, written: str, seconds: float):
    (model,) = read(write(f"{TOY}drain_s = {written}\n")).models
    assert model.replica.park.drain_us == seconds * 10**6
