"""The line of a build's log that a person would point at as the cause of its failure.

Lines are of four kinds:

- a *candidate* says what is wrong: `a.cc:3:5: error: …`, `E: Unable to locate package x`;
- a *consequence* says that something failed before it: `make: *** [a.o] Error 1`, `ninja: build stopped`;
- an *attached* line belongs to the one before it: notes, the compiler's quotations, a traceback's frames;
- all others show that the build goes on.

Neighbouring candidates are one burst, of which the first counts. A consequence confirms the burst near it. Lines that the other
jobs of a `make -j` print after that changes nothing. If the build goes on after a failure, the failure did not matter: then
the next candidate counts.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

_CUT = 1000
"""Characters of a line that are looked at.

A build prints what it likes, and the master's only thread reads it: each expression below must fail in a time that grows
with the length, not with its square or worse. So parts that follow one another accept different characters.
"""
_NEAR = 100
"""Lines between a candidate and its consequence, because other jobs print at the same time."""
_WORDS_BETWEEN = 5
"""How many of these may be neither commands nor progress: a program that fails with its own text prints more."""
_TAIL = 300
"""Most lines between an unconfirmed candidate and the end of the log; farther away it explains nothing."""
_UNFINISHED = 200
"""Lines that the other jobs of a failed `make -j` may print until the next failure counts as another one."""
_ASIDE = 10
"""Lines after which ninja has stopped printing: a failed ninja finishes its other steps."""
_NEIGHBOURS = 2
"""Lines between two candidates of one burst."""
_PARAGRAPH = 8
"""Lines that may complete a candidate that ends with a colon."""

_NINJA = -1
"""Stands for a make's level: ninja has no levels."""
_MAKE = re.compile(
    r"\S*make(?:\[(?P<level>\d+)\])?: (?:\*\*\* (?:(?P<waiting>Waiting for unfinished jobs)|Deleting "
    r"|\[(?P<target>.*)\] (?:Error (?P<status>\d+))?)|(?P<ignored>\[.*\] Error \d+ \(ignored\)))"
)
_LEAVING = re.compile(r"\S*make\[\d+\]: Leaving directory ")
_MAKE_ITSELF = re.compile(r"\S*make(?:\[\d+\])?: \*\*\* (?!Waiting|Deleting|\[)")
"""make's own errors: no rule, a missing separator, a file that is not there."""
_NINJA_FAILED = re.compile(r"FAILED: (?:\[code=\d+\] \S|(?:[^\s./]*[./]\S*(?: |$))+$)")
_NINJA_STEP = re.compile(r"\[\d+/\d+\] ")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):$")
_DUMP = re.compile(
    r"==> (?:\S*/)?(?:config\.log|CMakeCache\.txt|CMakeError\.log|CMakeOutput\.log|CMakeConfigureLog\.yaml|meson-log\.txt) <=="
)
_DUMP_END = re.compile(r"dh\w*: error: ")
"""debhelper prints the logs of a failed configuration, with all the failures in them that did not matter."""
_SUCCESS = re.compile(r"dpkg-buildpackage: info: .*\bupload\b|Wrote: \S+\.rpm$")
"""The command that builds the packages has succeeded: the lines after it come from our own checks."""

_CONSEQUENCE = re.compile(
    r"(?:dpkg-buildpackage|dpkg-source|debuild|dpkg-genchanges|debsign): (?:fatal )?error: (?:.*\bsubprocess\b.*returned exit status|.*\bgave error exit status|.*aborting)"
    r"|dpkg-buildpackage: warning: .*aborting"
    r"|dh\w*: error: (?:.* returned exit code \d+|missing files, aborting|Aborting due to earlier error)"
    r"|debuild: fatal error "
    r"|ninja: (?:build stopped|subcommand failed)"
    r"|(?:error: )?Bad exit status from \S+ \(%\w+\)"
    r"|RPM build errors:"
    r"|-- Configuring incomplete"
    r"|error: command '?.*'? failed(?: with| : )"
    r"|(?:ERROR: )?Command errored out with exit status"
    r"|(?:subprocess\.)?CalledProcessError: "
    r"|(?:\w+\.)*CompileError: \S+$"
    r"|E: Sub-process \S+ returned an error code"
    r"|npm (?:ERR!|error) (?:A complete log|Exit status|Failed at the )"
    r"|mk-build-deps: Unable to install"
    r"|Errors while running CTest"
)
_ATTACHED = re.compile(
    r"\s|[|^~\xd7│╰]|compilation terminated|collect2: error: ld returned|cc1\w*: (?:all|some) warnings being treated as errors"
    r"|(?:note|hint): |See also |In file included from"
    r"|npm (?:ERR!|error)(?:$| (?:code|errno|syscall|path|cwd|command|network (?:This|In|'proxy)|\s))"
    r"|tar: (?:Error is not recoverable|Child returned status|Exiting with failure)"
    r"|Error compiling Cython file:|-{20}|\.\.\.$"
    r"|Hunk #\d+ |E: (?:Unable to correct problems|Unable to fetch some archives|Some index files failed)"
    r"|RPM build warnings:|Not all dependencies satisfied|(?:Error: )?Some packages could not be found"
    r"|The following packages have unmet dependencies"
    r"|W: |N: |Err:|Resolving "
    r"|ERROR: Failed (?:building wheel|to build) |ERROR: (?:Could not|Failed to) build (?:installable )?wheels for "
    r"|(?:ERROR|error): (?:subprocess-exited-with-error|metadata-generation-failed|failed-wheel-build-for-install)"
)
_NOTES = (
    ": note: ", ": warning: ", ": In function ", ": In member ", ": In constructor ", ": In instantiation ", ": In lambda ",
    ": in function ", ": At global scope", ": At top level", ": required from ", ": more undefined references to ",
    "recipe for target",
)  # fmt: skip
"""Words of attached lines, but for those of debhelper, whose warnings are causes."""

_PLACE = re.compile(r"(?P<file>[^\s:()]+):\d+(?::\d+)?: ")
_CANDIDATE = re.compile(
    r"(?:\S{1,300}(?: \S{1,40})?: )?(?:fatal |internal compiler )?(?:error|ERROR|Error)(?:\[E\d+\])? ?: ?\S"
    r"|\S{1,300}\.pyx:\d+:\d+: |\S+: fatal: |(?:E|FATAL|FATAL ERROR|fatal): \S|CMake Error\b"
    r"|\S+: cannot (?:stat|open|create|access|remove|find|touch|execute)\b"
    r"|(?:pip|tar|gzip|xz|bzip2|patch|rsync|install|mv|cp|ln|unzip|cpio|ar|strip|objcopy|dwz): "
    r".*(?:[Cc]annot|[Ee]rror|[Uu]nexpected (?:end|EOF)|: not in |[Tt]oo many|[Ff]ailed|[Ii]nvalid)"
    r"|curl: \(\d+\) |npm (?:ERR!|error) \S|\d+ out of \d+ hunks? FAILED|Patch \S+ does not apply"
    r"|dh_\w+: (?:warning: \S+ missing files: |warning: .* exists in debian/\S* but is not installed|error: )"
    r"|No matching package to install: |Problem: "
    r"|The following tests FAILED:|\[  FAILED  \] \S+\.\S+ \(|FAILED \S+::|FAIL: \S"
    r"|Segmentation fault|Bus error|Illegal instruction"
)
_TELLING = (
    "undefined reference to ", ": multiple definition of ", "cannot find -l", "No space left on device", "virtual memory exhausted",
    "Cannot allocate memory", "Could not resolve host", "unable to resolve host address", ": Temporary failure ", " ERROR 4",
    " ERROR 5", " nothing provides ", "core dumped",
)  # fmt: skip
"""Words that make a line a candidate wherever they stand in it."""
_ENDINGS = (
    ": not found", ": command not found", ": No such file or directory", ": Permission denied", ": Connection refused",
    ": Connection reset by peer", ": Connection timed out", ": Is a directory",
    ": fg: no job control",
)  # fmt: skip
"""Bash takes a macro that rpm does not know, `%{__cmake}`, for a job, and says so by the last of these."""
_PARAGRAPHS = re.compile(r"CMake Error at .*:$|(?:configure: )?[Ee]rror: .*:$|The following tests FAILED:$")
"""Candidates whose next lines say what is wrong."""
_EXCEPTION = re.compile(
    r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|NotFound|Failure|Warning|Timeout)\b(?:: |$)"
)
_STEP = re.compile(
    r"make(?:\[\d+\])?: (?:Entering|Leaving|Nothing|')|\[ *\d+%\]|\[ *\d+/\d+\]|\+ |-- |dh_|checking |(?:cd|rm|mv|cp|ln|install|/[^\s/]*/\S+) "
    r"|(?:Get|Hit|Ign):\d|(?:\S*-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|ld|ar|libtool:)(?:-\d+)? "
)
"""Commands and progress, as opposed to the text of a program that fails."""
_WORDS = (
    "rror:", "rror :", "rror[", "rrors:", "CMake Error", "Error compiling", "Errors while", "ERROR ", "ERROR:", "FATAL", "atal:", "E: ", "***",
    "ninja:", "FAILED", "FAIL:", "annot ", "npm ", "nexpected end", "nexpected EOF", "does not apply", "missing files", "not installed", " : Depends: ",
    "No matching", "Problem:", "Traceback", "upload", "Wrote:", "exit status", "ignored", " fault", "Bus e", "aborting", ".pyx:",
    "Unable to install", ": not in ", "ailed", "oo many", "nvalid", "Illegal", "incomplete", "curl:", *_TELLING,
)  # fmt: skip
"""Every candidate and every consequence contains one of these or of _ENDINGS, a quick test that settles most lines."""


@dataclass
class _Burst:
    """Neighbouring candidates: the first of them, and how many lines ago the last one was."""

    line: str
    file: str
    ago: int = 0
    words: int = 0
    """Number of lines that are neither commands nor progress."""


class Cause:
    """Reads a log line by line and remembers a few lines of it."""

    def __init__(self) -> None:
        self.last = ""
        """The last line that is not empty."""
        self._burst: _Burst | None = None
        self._confirmed = ""
        self._collapsing = False
        """A consequence was the last that happened; nothing has shown yet that the build goes on."""
        self._unfinished: int | None = None
        """The level of a make that waits for its other jobs after a failure."""
        self._since = 0
        """Lines since the last consequence."""
        self._ninja_failed = False
        self._aside = 0
        """Lines since ninja's last step."""
        self._dumping = False
        self._traceback = -1
        """Indentation of the traceback that is being read; -1 if none is."""
        self._header = 0
        """Lines that may still complete the candidate."""
        self._plain: deque[str] = deque(maxlen=_NEIGHBOURS + 1)
        """The last lines of no kind, in case a command failed without a candidate."""

    @property
    def line(self) -> str:
        """The cause as far as the log was read; empty if it has none."""
        burst = self._burst
        if burst is not None and not self._is_collapsing and (self._ninja_failed or burst.ago <= _TAIL):
            return burst.line
        return self._confirmed if self._since <= _TAIL else ""

    def feed(self, line: str) -> None:
        """Read one line."""
        line = line[:_CUT].rstrip()
        bare = line.lstrip()
        if not bare:
            self._header = min(self._header, _PARAGRAPH - 1) if self._header == _PARAGRAPH else 0
            return
        self.last = bare
        if self._dumping and not _DUMP_END.match(bare):
            return
        self._dumping = False
        if bare.startswith("==> ") and _DUMP.match(bare):
            if self._burst is not None:
                self._consequence()
            self._dumping = self._collapsing = True
            return
        if self._header and self._complete(line, bare):
            return
        if self._traceback >= 0 and self._in_traceback(line, bare):
            return
        if bare.endswith(_ENDINGS) or any(word in bare for word in _WORDS):
            self._classify(line, bare)
        elif not _is_attached(line):
            self._goes_on(bare)

    def _classify(self, line: str, bare: str) -> None:
        if _SUCCESS.match(bare):
            self._burst, self._confirmed = None, ""
            self._plain.clear()
            self._collapsing, self._unfinished, self._ninja_failed = False, None, False
        elif _TRACEBACK.match(bare):
            self._traceback = len(line) - len(bare)
        elif make := _MAKE.match(bare):
            self._make(make)
        elif _MAKE_ITSELF.match(bare):
            if not self._is_collapsing:
                self._burst = _Burst(bare, "")
                self._consequence()
        elif _NINJA_FAILED.match(bare):
            self._fails_next()
        elif _CONSEQUENCE.match(bare):
            self._consequence()
        elif _is_attached(bare):
            pass
        elif _is_candidate(bare):
            self._candidate(bare)
        elif not line[0].isspace():
            self._goes_on(bare)

    @property
    def _is_collapsing(self) -> bool:
        if self._unfinished is not None:
            return self._since <= _UNFINISHED
        return self._collapsing

    def _goes_on(self, bare: str) -> None:
        self._since += 1
        if _LEAVING.match(bare):
            return
        if self._burst is not None:
            self._burst.ago += 1
            if self._burst.ago <= _NEAR:
                self._burst.words += not _STEP.match(bare)
        if self._ninja_failed and _NINJA_STEP.match(bare):
            self._consequence()
            self._unfinished = _NINJA
            return
        self._aside = 0 if _NINJA_STEP.match(bare) else self._aside + 1
        if self._unfinished == _NINJA and self._aside > _ASIDE:
            self._unfinished = None
        self._collapsing = False
        self._plain.append(bare)

    def _candidate(self, bare: str) -> None:
        if self._is_collapsing and self._unfinished is None:
            return  # The caller of the failed command reports the same failure again.
        place = _PLACE.match(bare)
        file = place["file"] if place else ""
        burst = self._burst
        if burst is not None and (burst.ago <= _NEIGHBOURS or (file and file == burst.file)):
            burst.ago = burst.words = 0
            self._header = 0
            return
        self._burst = _Burst(bare, file)
        self._header = _PARAGRAPH if _PARAGRAPHS.match(bare) else 0

    def _complete(self, line: str, bare: str) -> bool:
        """Append a line to the candidate that it completes; return False if it does not."""
        if self._burst is None or not (line[0].isspace() or self._burst.line.startswith("configure: ")):
            self._header = 0
            return False
        self._burst.line = f"{self._burst.line} {bare}"[:_CUT]
        self._header -= 1
        if not self._burst.line.startswith("CMake Error"):
            self._header = 0
        return True

    def _in_traceback(self, line: str, bare: str) -> bool:
        """Read a line below `Traceback`; return False if it does not belong to one."""
        if len(line) - len(bare) > self._traceback:
            return True
        self._traceback = -1
        if _CONSEQUENCE.match(bare) or not _EXCEPTION.match(bare):
            return False
        self._candidate(bare)
        return True

    def _fails_next(self) -> None:
        """Note that the lines up to ninja's next step belong to a command that failed."""
        if not self._is_collapsing:
            self._burst = None
            self._plain.clear()
            self._ninja_failed = True

    def _make(self, make: re.Match[str]) -> None:
        level = int(make["level"] or 0)
        if make["ignored"]:
            self._burst = None
        elif make["waiting"]:
            outer = self._unfinished if self._unfinished is not None and self._is_collapsing else level
            self._unfinished, self._since = min(outer, level), 0
        elif make["target"] is not None:
            if self._unfinished is not None and self._is_collapsing and level >= self._unfinished:
                self._burst = None  # The failure of another job.
                return
            self._unfinished = None
            # A make that failed ends with status 2.
            passed_on = make["status"] == "2" and self._confirmed and self._since <= _UNFINISHED
            if passed_on and not self._is_of(make["target"]):
                self._burst = None
                self._collapsing = True
                self._since = 0
                return
            self._consequence(make["target"])

    def _is_of(self, target: str) -> bool:
        """Return whether the burst names the file that make could not make."""
        if self._burst is None or not self._burst.file or not target:
            return False
        stem = self._burst.file.rpartition("/")[2].partition(".")[0]
        return bool(stem) and re.search(rf"\b{re.escape(stem)}\b", target) is not None

    def _consequence(self, target: str = "") -> None:
        burst = self._burst
        if self._unfinished == _NINJA and self._is_collapsing:
            burst = None  # The failure of another step.
        if burst is not None and (
            self._ninja_failed
            or (burst.ago <= _NEAR and burst.words <= _WORDS_BETWEEN)
            or self._is_of(target)
        ):
            self._confirmed = burst.line
        elif not self._is_collapsing:
            plain = next((line for line in reversed(self._plain) if not _STEP.match(line)), "")
            if plain or target or self._since > _UNFINISHED:
                self._confirmed = plain
        self._burst = None
        self._ninja_failed = False
        self._collapsing = True
        self._since = 0
        if self._unfinished == _NINJA:
            self._unfinished = None


def _is_attached(line: str) -> bool:
    if _ATTACHED.match(line):
        return True
    return any(note in line for note in _NOTES) and not line.startswith("dh_")


def _is_candidate(bare: str) -> bool:
    if _CANDIDATE.match(bare) or any(words in bare for words in _TELLING):
        return True
    if bare.endswith(_ENDINGS):
        return " " not in bare.partition(": ")[0]
    return " : Depends: " in bare and " but " in bare
