"""What documents print in fenced blocks: which of it is shell, what it is said to answer, and how that is compared."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=str)
SHELL = frozenset({"sh", "bash"})
PROGRAMS = "callvault|curl|pip|python3?|docker|make|export|jq|tail|ffmpeg|aws|rclone|git|systemctl"
ID = "rec|hold|era|cert|tok|bak|ovr|pol|vlt"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block; `answer` is the block right behind it, where that is no language: what it prints."""

    page: Path
    line: int
    heading: str
    language: str
    text: str
    answer: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return every fenced block of a page, in order."""
    text = page.read_text()
    found = list(_FENCE.finditer(text))
    made = []
    for match, following in zip(found, [*found[1:], None], strict=False):
        answers = following is not None and not following[1] and not text[match.end() : following.start()].strip()
        headings = [each[1] for each in _HEADING.finditer(text, 0, match.start())]
        made.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start()) + 1,
                heading=headings[-1] if headings else "",
                language=match[1],
                text=match[2],
                answer=following[2] if answers and following is not None else None,
            )
        )
    return made


def looks_like_shell(text: str) -> str | None:
    """Return the language of a block that somebody would type, or that shows somebody typing; None for another."""
    first = text.lstrip("\n").splitlines()[0] if text.strip() else ""
    if re.search(r"^\$ ", text, re.MULTILINE):
        return "console"
    return "sh" if re.match(rf"({PROGRAMS}) [\w./-]|[A-Z_]+=\S", first) else None


def typed(text: str) -> list[str]:
    """Return the command lines of a transcript, each with its continuation lines."""
    return [each.removeprefix("$ ") for each in re.findall(r"^\$ (?:.*\\\n)*.*$", text, re.MULTILINE)]


def commands(text: str) -> list[str]:
    """Return the commands of a shell block one by one, each with its continuation lines and what it quotes."""
    whole: list[str] = []
    begun = ""
    for line in text.splitlines(keepends=True):
        begun += line
        try:
            shlex.split(begun, comments=True)
        except ValueError:  # a quotation goes on
            continue
        if not begun.rstrip("\n").endswith(("\\", "|")):
            whole.append(begun)
            begun = ""
    assert not begun.strip(), f"the last command does not end: {begun}"
    return [each for each in whole if each.strip()]


def loosely(text: str) -> str:
    """Return text without what differs from run to run: ids, instants, hashes, numbers and spacing."""
    text = re.sub(rf"\b({ID})_(…|[0-9a-f]{{32}})", r"\1_*", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", "*", text)
    text = re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b|\b[0-9a-f]{4}…|…", "*", text)
    text = re.sub(r"[\d,]*\d", "*", text)
    text = re.sub(r"([\"*\]}el][,:]) +(?=[\"*\[{tfn-])", r"\1", text)  # JSON is the same with blanks and without
    return re.sub(r"\s+", " ", text).strip()
