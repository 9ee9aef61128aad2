"""The keys of devices: what contradicts itself, and what can never be given, with its arithmetic."""

import pytest

from poorwill.core.settings import DeviceNeed, DeviceSettings

from .conftest import TOY, Write, problems_of, read

GIB = 2**30
ONE = '[[devices]]\nindex = 0\nuuid = "GPU-a"\nmemory = "80 GiB"\n'
OTHER = '[models.other]\nengine = "toy"\n'


def test_devices_and_needs_arrive_in_core_units(write: Write):
    need = 'gpu_memory = "20 GiB"\non = ["GPU-a", "0", "big:0"]\napart = ["other"]\n'
    fleet = read(write(ONE + OTHER + TOY + need))
    assert fleet.devices == (DeviceSettings(index=0, uuid="GPU-a", memory_bytes=80 * GIB),)
    assert fleet.models[1].devices == DeviceNeed(
        gpu_memory_bytes=20 * GIB, on=("GPU-a", "0", "big:0"), apart=("other",)
    )
    assert fleet.gives_devices
    assert not read(write(TOY)).gives_devices


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ONE + "[[devices]]\nindex = 0\n", "index 0 is stated twice (devices[0] has it)"),
        (ONE + ONE.replace("index = 0", "index = 1"), "GPU-a is stated twice (devices[0] has it)"),
        ("[[devices]]\nmemory = 1\n", "devices[0].index: is missing"),
        ("[devices]\n", "must be a list of tables, not a table (write [[devices]])"),
        (ONE + TOY + "gpus = 2\n", "models.toy.gpus: can never fit: it needs 2 whole devices; 1 of 1 device"),
        (
            ONE + TOY + 'gpu_memory = "81 GiB"\n',
            "needs 81 GiB of one device; none of 1 device will do: GPU-a",
        ),
        (
            ONE + TOY + 'gpus = 1\non = ["1"]\n',
            "needs 1 whole device out of 1; none of 1 device will do",
        ),
        (TOY + 'on = ["0"]\n', "models.toy.on: says which device, but the model needs none"),
        (TOY + 'gpus = 1\non = ["first"]\n', "'first' is not a UUID, an index, or HOST:INDEX"),
        (
            TOY + 'gpus = 1\napart = ["othr"]\n' + OTHER,
            "'othr' is no other model here (did you mean",
        ),
        (TOY + 'gpus = 1\napart = ["toy"]\n', "'toy' is no other model here"),
        (
            TOY + 'gpus = 1\nenv = { CUDA_VISIBLE_DEVICES = "0" }\n',
            "is set by hand and by gpus",
        ),
        (TOY + 'gpus = 1\nladder = ["suspended", "cold"]\n', "a virtual machine, which has no device"),
    ],
)
def test_what_cannot_be_is_an_error(write: Write, text: str, told: str):
    problems = problems_of(write(text if "models" in text else text + TOY))
    assert len(problems) == 1 and told in problems[0], problems


@pytest.mark.parametrize(
    ("need", "fit"), [('gpu_memory = "41 GiB"', 2), ('gpu_memory = "40 GiB"', 4), ("gpus = 1", 2)]
)
def test_all_replicas_must_fit_side_by_side(write: Write, need: str, fit: int):
    two = ONE + ONE.replace("= 0", "= 1").replace("GPU-a", "GPU-b")
    fleet = f"{two}{TOY}{need}\nmax_concurrency = 1\nreplicas = "
    assert read(write(f"{fleet}{fit}\n")).gives_devices
    (problem,) = problems_of(write(f"{fleet}{fit + 1}\n"))
    assert f"can never have {fit + 1} replicas ready" in problem
    assert f"and {fit} fit side by side" in problem


def test_instances_of_one_device_share_its_index(write: Write):
    parts = "".join(f'[[devices]]\nindex = 0\nuuid = "MIG-{n}"\nmemory = "10 GiB"\n' for n in "ab")
    assert len(read(write(parts + TOY)).devices) == 2


def test_memory_that_nvml_is_to_tell_is_not_judged(write: Write):
    assert read(write("[[devices]]\nindex = 0\n" + TOY + 'gpu_memory = "500 GiB"\n')).gives_devices


def test_a_rented_machine_has_its_own_devices(write: Write):
    rented = (
        '[models.big]\nengine = "vllm"\nladder = ["hibernated", "cold"]\ngpus = 1\n[models.big.cloud]\n'
        'provider = "hyperstack"\nid = "1"\nurl = "http://10.0.0.5:8000"\nkey_env = "K"\n'
    )
    (problem,) = problems_of(write(rented), K="s")
    assert "models.big.gpus: is for this machine, and the model is on another one" in problem
