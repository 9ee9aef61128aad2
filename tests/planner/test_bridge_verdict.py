"""The bridge in the verdict: it gives text away, so it is chosen only if somebody named where to."""

from tests.planner import units

WORDS = (
    *("--synthetic", "bursty", "--active-usd-h", "2", "--wake-s", "60"),
    *("--wait-usd-s", "0.01", "--idle-s", "90,300"),
)
PRICES = "provider,model,input_usd_per_mtok,output_usd_per_mtok,source\nme,dear,80,260,a quote\n"


async def document(plan, *words):
    ran = await plan(*words, "--json")
    assert ran.status == 0, ran.err
    return units.read(ran.out)


def objective(found, name):
    return next(one["objective_usd"] for one in found["policies"] if one["name"] == name)


async def test_an_unnamed_bridge_is_only_offered(plan):
    found = await document(plan, *WORDS)
    assert found["recommended"] == "hosted"
    assert "If it must be your own: scale to zero with " in found["verdict"]
    assert objective(found, "bridge") < objective(found, "adaptive")
    assert "With a bridge to groq/llama-3.3-70b-versatile nobody waits" in found["verdict"]
    assert "it is for you to say" in found["verdict"]


async def test_a_named_bridge_is_the_answer(plan, tmp_path):
    table = tmp_path / "prices.csv"
    table.write_text(PRICES)
    found = await document(plan, *WORDS, "--hosted", "me/dear", "--prices", str(table))
    assert (found["answer"], found["recommended"]) == ("scale to zero", "bridge")
    assert "requests go to me/dear, which reads them" in found["verdict"]
    assert "`bridge = true`" in found["verdict"]


async def test_a_bridge_that_gains_nothing_is_not(plan):
    dense = ("--synthetic", "bursty", "--active-usd-h", "2", "--wake-s", "0.001")
    found = await document(plan, *dense)
    assert "bridge" not in found["verdict"]
