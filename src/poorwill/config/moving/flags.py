"""The flags of a command line, taken out one by one; what is left keeps its words and order."""

import re
from collections.abc import Mapping, Sequence

_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_NUMBER = re.compile(r"-?\d")


class Flags:
    """Words of a command line as flags with their values, and what stands before the first flag."""

    def __init__(self, words: Sequence[str]) -> None:
        """`--flag=value` is read as `--flag value`; a word like `-1` is a value."""
        self._before: list[str] = []
        self._flags: list[tuple[str, list[str]]] = []
        for word in words:
            if word.startswith("-") and not _NUMBER.match(word):
                name, equals, value = word.partition("=")
                self._flags.append((name, [value] if equals else []))
            elif self._flags:
                self._flags[-1][1].append(word)
            else:
                self._before.append(word)

    def take(self, name: str) -> list[str] | None:
        """Return a flag's values and take it out; None if it is not there. `_` counts as `-`."""
        found = self.peek(name)
        self._flags = [one for one in self._flags if _plain(one[0]) != name]
        return found

    def peek(self, name: str) -> list[str] | None:
        """Return a flag's values, the last one's if it is repeated; None if it is not there."""
        return next((values for flag, values in reversed(self._flags) if _plain(flag) == name), None)

    def take_port(self) -> str:
        """Return the value of `--port`, and take it out; empty if there is none."""
        return next(iter(self.take("--port") or ()), "")

    def positional(self) -> list[str]:
        """Return the words before the first flag, and take them out."""
        words, self._before = self._before, []
        return words

    def as_options(self) -> dict[str, object]:
        """Return, and take out, the flags that a table can hold: `--max-model-len 8192` as a number."""
        names = [flag for flag, _ in self._flags]
        simple = [
            (flag, values)
            for flag, values in self._flags
            if re.fullmatch(r"--[A-Za-z][\w-]*", flag) and len(values) < 2 and names.count(flag) == 1
        ]
        self._flags = [one for one in self._flags if one not in simple]
        return {flag[2:].replace("-", "_"): _value(values) for flag, values in simple}

    def words(self) -> list[str]:
        """Return what is left."""
        return [*self._before, *(word for flag, values in self._flags for word in (flag, *values))]


def _plain(flag: str) -> str:
    return flag.replace("_", "-") if flag.startswith("--") else flag


def _value(values: Sequence[str]) -> object:
    """Return a flag's value; a number only if it is written back the same."""
    if not values:
        return True
    text = values[0]
    for kind in (int, float):
        try:
            if repr(number := kind(text)) == text:
                return number
        except ValueError:
            continue
    return text


def expanded(word: str, env: Mapping[str, str]) -> str:
    """Return a word as a shell would have it: `~`, `$HOME` and `$PWD`; other variables stay as they stand."""
    home = env.get("HOME", "")
    word = word.replace("$(pwd)", "${PWD}")
    if home and (word == "~" or word.startswith("~/")):
        word = home + word[1:]

    def known(match: re.Match[str]) -> str:
        return env.get(match[1], match[0]) if match[1] in ("HOME", "PWD", "USER") else match[0]

    return _VARIABLE.sub(known, word)
