"""How bodies are read and changed, as the gateway is told of it."""

from poorwill.engines.dialects.answers import answer_reader
from poorwill.engines.dialects.bodies import asking_usage, form_spans, read_fields, read_form, renamed
from poorwill.gateway.dialects import Dialects

DIALECTS = Dialects(
    new_reader=answer_reader,
    read_fields=read_fields,
    form_spans=form_spans,
    read_form=read_form,
    renamed=renamed,
    asking_usage=asking_usage,
)
