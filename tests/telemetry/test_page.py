"""The dashboard: whole in one file, and in step with what the admin listener tells."""

import re
from dataclasses import fields
from typing import get_args

from poorwill.core.entries import Entry
from poorwill.core.ports.view import ReplicaStatus, WakeInterval
from poorwill.ledger.history.views import PastRequest
from poorwill.telemetry.dashboard.page import page

PAGE = page().decode()
KINDS = {kind.__name__: kind for kind in get_args(Entry)}


def test_the_page_loads_nothing_external() -> None:
    local = PAGE.replace("http://www.w3.org/2000/svg", "")  # the name of SVG, which nobody fetches
    assert not re.findall(r"https?://|//cdn|<link(?! rel=\"icon\")|<script src|@import|url\(", local)


def test_the_page_is_small() -> None:
    assert len(page()) < 150_000


def test_the_page_follows_light_and_dark() -> None:
    assert "color-scheme: light dark" in PAGE
    assert "prefers-color-scheme" in PAGE or "light-dark(" in PAGE


def test_text_enters_the_page_as_text_only() -> None:
    assert not re.findall(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", PAGE)


def test_the_page_names_real_fields() -> None:
    told = re.search(r"const tell = \{(.*?)\n\};", PAGE, re.DOTALL)
    assert told is not None
    listed = re.findall(r"^  (\w+): e => (.*?)(?=^  \w+: e =>|\Z)", told[1], re.DOTALL | re.MULTILINE)
    assert {"WakeBegan", "WakeEnded", "ParkEnded", "RequestEnded", "Noted"} <= {k for k, _ in listed}
    for kind, text in listed:
        if kind != "Lost":
            names = {field.name for field in fields(KINDS[kind])}
            assert set(re.findall(r"\be\.(\w+)", text)) <= names, kind


def test_the_page_shows_status_fields() -> None:
    names = {field.name for field in fields(ReplicaStatus)} | {"since_s"}
    used = set(re.findall(r"\br\.(\w+)", PAGE))
    told = {"ready_in_us", "parks_at_us", "last_error", "last_error_us", "retry_at_us", "failures"}
    assert told <= used <= names
    wake = {field.name for field in fields(WakeInterval)}
    shown = set(re.findall(r"\bw\.(\w+)", PAGE))
    assert {"p50_s", "p95_s", "max_s", "budget_s"} <= shown <= wake


def test_the_page_shows_request_fields() -> None:
    used = set(re.findall(r"\bq\.(\w+)", PAGE))
    assert {"held", "tokens_in", "outcome"} & used and used <= {field.name for field in fields(PastRequest)}
