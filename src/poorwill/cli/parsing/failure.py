"""The document that `--json` prints when a verb fails."""

from collections.abc import Sequence

import msgspec

from poorwill.cli.parsing.exit_status import EXIT_STATUS
from poorwill.core.errors import ErrorCode, PoorwillError
from poorwill.core.problems import ConfigFault, Problem


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake in a configuration."""

    line: int | None
    where: str
    what: str
    hint: str


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, by code, in words, and how to fix it."""

    code: ErrorCode
    message: str
    hint: str | None
    retry_after_s: int | None
    exit_status: int
    problems: tuple[ProblemDocument, ...]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Printed on stdout instead of the verb's own document; the exit status is not 0."""

    error: Fault


def problem_documents(problems: Sequence[Problem]) -> tuple[ProblemDocument, ...]:
    """Return mistakes for JSON."""
    return tuple(
        ProblemDocument(line=one.line, where=one.where, what=one.what, hint=one.hint) for one in problems
    )


def failure(fault: PoorwillError) -> Failure:
    """Return the document for an error."""
    problems = fault.problems if isinstance(fault, ConfigFault) else ()
    return Failure(
        error=Fault(
            code=fault.code,
            message=fault.message,
            hint=fault.hint,
            retry_after_s=fault.retry_after_s,
            exit_status=EXIT_STATUS[fault.code],
            problems=problem_documents(problems),
        )
    )
