"""What the gateway knows of engines and of the dialects that they and their clients speak.

It is told all of it: the dialects are at home with the engines.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from poorwill.core.ports.answers import NewReader
from poorwill.core.ports.names import Meaning
from poorwill.core.words import ModelName
from poorwill.gateway.downstream.spool import Spool
from poorwill.policies.requests.affinity import Conversations

Spans = Mapping[bytes, tuple[int, int]]
"""Where the values of some fields are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialects:
    """How bodies are read and changed. Functions that read raise RequestFault."""

    new_reader: NewReader
    read_fields: Callable[[bytes, bytes], tuple[ModelName, bool]]
    """From a body and its content type: the model, empty if none is named, whether to stream."""
    form_spans: Callable[[Spool, bytes], Spans]
    """From a form and its content type: where the fields are that are read. Blocks."""
    read_form: Callable[[Spool, Spans], tuple[ModelName, bool]]
    """The same of a form. Blocks."""
    renamed: Callable[[bytes, str], bytes]
    """The body with another name of its model."""
    asking_usage: Callable[[bytes], bytes]
    """The body of a streamed request with a wish for usage; the same one if it has a wish of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the gateway knows of the models' engines."""

    dialects: Dialects
    rows: Callable[[Callable[[ModelName], bool]], Sequence[Mapping[str, object]]]
    """What `/v1/models` lists of the models that a key may use."""
    meaning: Callable[[ModelName], Meaning | None] = lambda name: None
    """What a name means, if it is not a model's own."""
    paths: Callable[[ModelName], Collection[str] | None] = lambda model: None
    """The paths that a model's engine serves; None: any, or there is no such model."""
    asked: Callable[[ModelName, str, bytes], None] = lambda model, request, body: None
    """Called with every request's model, id and body, for those who may look at them."""
    tells_usage: Callable[[ModelName], bool] = lambda model: False
    """Whether a model's engine tells the usage of a stream if asked for it."""
    conversations: Conversations = field(default_factory=Conversations)
    """Who served the last conversations."""
