"""Models by name: `hf:ORG/NAME[:FILE or QUANT][@REVISION]`, a model of the Hugging Face hub."""

import re
from dataclasses import dataclass

SCHEME = "hf:"
_NAME = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})"
    r"(?::(?P<which>[A-Za-z0-9][\w./+-]*))?(?:@(?P<revision>[A-Za-z0-9][\w./-]*))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """A model of the hub."""

    repo: str
    """`ORG/NAME`."""
    which: str = ""
    """A file of it, or a word that tells one GGUF from the others, such as `Q4_K_M`."""
    revision: str = "main"

    def __str__(self) -> str:
        which = f":{self.which}" if self.which else ""
        return f"{SCHEME}{self.repo}{which}" + ("" if self.revision == "main" else f"@{self.revision}")


def hub_name(text: str) -> HubName | None:
    """Return the model that a text names; None if it names none."""
    match = _NAME.fullmatch(text)
    if match is None or ".." in text:
        return None
    return HubName(repo=match["repo"], which=match["which"] or "", revision=match["revision"] or "main")
