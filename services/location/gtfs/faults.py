"""What is wrong with a feed: faults, by which it is refused, and warnings, with which it is used.

Every finding says where it is, what is wrong and how to mend it.
"""

from collections import Counter
from dataclasses import dataclass, field

_KEPT_MAX = 50
_VALUE_CHARACTERS_MAX = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Is one fault or warning. `line` counts from 1; 0 means the whole file."""

    file: str
    line: int
    column: str
    value: str
    what: str
    mend: str


class FeedBrokenError(Exception):
    """Says that a feed is refused as a whole; `findings` has the faults."""

    def __init__(self, findings: "Findings") -> None:
        """Take what was found."""
        super().__init__(f"the feed has {findings.fault_count} faults")
        self.findings = findings


@dataclass(slots=True)
class Findings:
    """Gathers what is wrong: the first 50 faults and warnings, and how many there are of each."""

    faults: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    fault_count: int = 0
    warning_count: int = 0
    faults_by_file: Counter[str] = field(default_factory=Counter)

    def fault(
        self, file: str, line: int, column: str, value: object, *, what: str, mend: str
    ) -> None:
        """Note what breaks the feed."""
        self.fault_count += 1
        self.faults_by_file[file] += 1
        if len(self.faults) < _KEPT_MAX:
            self.faults.append(_finding(file, line, column, value, what, mend))

    def warn(
        self, file: str, line: int, column: str, value: object, *, what: str, mend: str
    ) -> None:
        """Note what is odd and usable."""
        self.warning_count += 1
        if len(self.warnings) < _KEPT_MAX:
            self.warnings.append(_finding(file, line, column, value, what, mend))

    def refuse_if_broken(self) -> None:
        """Raise FeedBrokenError when there are faults."""
        if self.fault_count:
            raise FeedBrokenError(self)


def _finding(file: str, line: int, column: str, value: object, what: str, mend: str) -> Finding:
    shown = str(value)
    if len(shown) > _VALUE_CHARACTERS_MAX:
        shown = shown[: _VALUE_CHARACTERS_MAX - 1] + "…"
    # What comes from a file is shown in terminals: no control characters, please.
    shown = "".join(letter if letter.isprintable() else "�" for letter in shown)
    return Finding(file=file, line=line, column=column, value=shown, what=what, mend=mend)
