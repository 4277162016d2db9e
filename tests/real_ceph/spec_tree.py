"""The real `ceph.spec.in` with `%build` and `%install` that take seconds: a file for each line of its own `%files`.

The lines keep their macros and conditions, so rpm decides which files there are, as it does for the real ones.
"""

from __future__ import annotations

import re

_SECTION = re.compile(
    r"%(?:package|description|prep|build|check|install|clean|files|post|postun|pre|preun|changelog)\b"
)
_CONDITION = re.compile(r"%(?:if|ifarch|else|elif|endif)\b")
_DIRECTIVE = re.compile(r"%(?:attr|config|dir|doc|license|verify)(?:\([^)]*\))?\s+")

_MACROS = """\
# Macros that the distribution's own packages define, and Debian's rpm lacks.
%{!?_vpath_builddir: %global _vpath_builddir redhat-linux-build}
%{!?_unitdir: %global _unitdir /usr/lib/systemd/system}
%{!?_presetdir: %global _presetdir /usr/lib/systemd/system-preset}
%{!?_sysctldir: %global _sysctldir /usr/lib/sysctl.d}
%{!?_tmpfilesdir: %global _tmpfilesdir /usr/lib/tmpfiles.d}
%{!?python3_sitelib: %global python3_sitelib /usr/lib/python3/site-packages}
%{!?python3_sitearch: %global python3_sitearch /usr/lib64/python3/site-packages}
%{!?systemd_post: %global systemd_post() :}
%{!?systemd_preun: %global systemd_preun() :}
%{!?systemd_postun: %global systemd_postun() :}
"""

_BUILD = """\
%build
env | sort
echo "cmake .. $CEPH_EXTRA_CMAKE_ARGS"
printf 'const char *built = "%%s %%s";\\nint main(void) { return !built; }\\n' \\
    stub "$CEPH_EXTRA_CMAKE_ARGS" >stub.c
"""

_INSTALL = """\
%install
directory() { mkdir -p "%{buildroot}$1"; }
file() {
    directory "$(dirname "$1")"
    [ -e "%{buildroot}$1" ] || echo "$1" >"%{buildroot}$1"
}
program() {
    directory "$(dirname "$1")"
    sed "s,stub,$1," stub.c >"${1##*/}.c"
    case $1 in *.so*) shared='-shared -fPIC' ;; *) shared= ;; esac
    gcc -g $shared -o "%{buildroot}$1" "${1##*/}.c"
}
"""


def short_spec(text: str) -> str:
    """Return the spec with sections that compile one small program for each package that has one, and stub the rest."""
    before, _, rest = text.partition("\n%build\n")
    _, _, after = rest.partition("\n%clean\n")
    assert after, "the spec has no %build or no %clean"
    return f"{_MACROS}{before}\n{_BUILD}\n{_INSTALL}{_stubs(after, _noarch(before))}\n%clean\n{after}"


def _noarch(text: str) -> set[str]:
    """Return the packages, by the words after `%package`, that are for every architecture."""
    found, package = set(), ""
    for line in text.splitlines():
        if section := _SECTION.match(line):
            package = _package(line) if section[0] == "%package" else ""
        elif package and line.startswith("BuildArch:"):
            found.add(package)
    return found


def _package(line: str) -> str:
    return " ".join(line.split()[1:])


def _stubs(text: str, noarch: set[str]) -> str:
    """Return shell lines that make what the `%files` sections list, within the conditions of these sections."""
    made, inside, programs = [], False, False
    for line in text.splitlines():
        if _CONDITION.match(line):
            made.append(f"{line}\n")
        elif section := _SECTION.match(line):
            inside = section[0] == "%files"
            programs = _package(line) not in noarch
        elif inside and line.strip() and not line.startswith("#"):
            path = line
            while (shorter := _DIRECTIVE.sub("", path)) != path:
                path = shorter
            path = (
                path.replace(".8*", ".8")
                .replace(".so.*", ".so.1")
                .replace(".so*", ".so")
                .replace("*", "stub")
            )
            kind = "directory" if "%dir" in line else "file"
            if kind == "file" and programs and re.search(r"_s?bindir|\.so", path):
                kind, programs = "program", False
            made.append(f"{kind} {path}\n")
    return "".join(made)
