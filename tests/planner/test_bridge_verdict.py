"""The bridge in the verdict: it gives text away, so it is chosen only where somebody named where to."""

from tests.planner import units

from poorwill.policies import NAMES

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


async def test_where_nobody_named_a_hosted_api_the_bridge_is_on_offer_and_not_the_answer(plan):
    found = await document(plan, *WORDS)
    served = (*NAMES, "fixed-90s", "fixed-300s")
    assert found["recommended"] in served
    assert objective(found, "bridge") < objective(found, found["recommended"])
    assert "With a bridge to groq/llama-3.3-70b-versatile nobody waits" in found["verdict"]
    assert "it is for you to say" in found["verdict"]


async def test_one_that_is_named_is_the_answer_where_it_is_cheapest(plan, tmp_path):
    table = tmp_path / "prices.csv"
    table.write_text(PRICES)
    found = await document(plan, *WORDS, "--hosted", "me/dear", "--prices", str(table))
    assert (found["answer"], found["recommended"]) == ("scale to zero", "bridge")
    assert "requests go to me/dear, which reads them" in found["verdict"]
    assert "`bridge = true`" in found["verdict"]


async def test_where_the_bridge_gains_nothing_nothing_is_offered(plan):
    dense = ("--synthetic", "bursty", "--active-usd-h", "2", "--wake-s", "0.001")
    found = await document(plan, *dense)
    assert found["answer"] == "scale to zero"
    assert "bridge" not in found["verdict"]
