"""The commands in what the product prints."""

from __future__ import annotations

import re
import shlex


def commands_in(text: str) -> list[list[str]]:
    """Every `ablate VERB …` but `train`, split as a shell does: in backticks, or to the end of its line."""
    quoted = re.findall(r"`(ablate (?!train)[a-z]+\b[^`]*)`", text)
    bare = re.findall(r"(?<![`\w/.-])(ablate (?!train)[a-z]+\b[^`\n]*)$", text, flags=re.MULTILINE)
    return [shlex.split(command) for command in (*quoted, *bare)]
