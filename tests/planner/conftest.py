from functools import partial

import pytest
from tests.conftest import Poorwill

Plan = Poorwill


@pytest.fixture
def plan(poorwill: Poorwill) -> Plan:
    """Runs `poorwill plan` with these words, as a user would."""
    return partial(poorwill, "plan")
