"""How settings are written in `fleet.toml`, as far as the attribute's name, type and default do not say.

The name gives key and unit: `age_us` is `age_s` in the file and takes seconds, `day_nusd` is `day_usd` and
takes dollars, `memory_bytes` is `memory` and takes a size. These marks, put into `Annotated`, say the rest.
They are data: `poorwill.config` reads files by them.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated


@dataclass(frozen=True, slots=True)
class FileKey:
    """The key in the file, if the attribute's name does not give it."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The least and the most of a number in the file's unit, or the least length of a text or list."""

    least: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Matching:
    """What a text must match as a whole, and what such a text is called."""

    regex: str
    words: str


class Mark(Enum):
    """What sets a key apart from others of its type."""

    NOT_A_KEY = auto()  # given by the table's name or place, or predicted
    SPREAD = auto()  # a group whose keys stand in the table around it
    BARE = auto()  # a value of this type may stand in place of the whole table
    MERGES = auto()  # a table under [defaults] is completed by the model's own, not replaced
    FILE = auto()  # a path; a relative one counts from the file's directory
    FILE_OR_HUB = auto()  # a path, or `owner/name` on the Hugging Face hub
    ENGINE_URL = auto()  # an address written as http://HOST:PORT
    DATE = auto()  # a date or a date and time
    TIME_OF_DAY = auto()
    WEEKDAYS = auto()
    TIME_ZONE = auto()
    JSON = auto()  # any value that JSON has as well


OrZero = Annotated[int, Bounds(least=0)]
"""A duration that may be 0."""

NotEmpty = Annotated[str, Bounds(least=1)]

EnvName = Annotated[str, Matching(r"[A-Za-z_]\w*", "the name of an environment variable")]
