"""install-rpm.py BASE_URL RELEASE_RPM ARCH PROGRAM PACKAGE...: runs as root of a throw-away root.

Installs with dnf into an empty --installroot. What the distribution itself would provide comes from
a stub package that is made here: it provides what our packages require and do not provide.
"""

import gzip
import subprocess
import sys
import urllib.request
import xml.etree.ElementTree as ET
from pathlib import Path

LOCATION = "{http://linux.duke.edu/metadata/common}location"
INSTALL_ROOT = Path("/installed")


def packages_of(base_url: str, part: str) -> list[str]:
    """Fetch the packages of one repository; give where they are."""
    with urllib.request.urlopen(f"{base_url}/{part}/repodata/primary.xml.gz") as answer:
        tree = ET.fromstring(gzip.decompress(answer.read()))
    paths = []
    for location in tree.iter(LOCATION):
        path = Path("/tmp/packages", location.attrib["href"])
        path.parent.mkdir(parents=True, exist_ok=True)
        urllib.request.urlretrieve(f"{base_url}/{part}/{location.attrib['href']}", path)
        paths.append(str(path))
    return paths


def capabilities(kind: str, paths: list[str]) -> set[str]:
    """Ask rpm itself: the metadata leaves out some of what glibc is required for."""
    query = ["rpm", "-qp", "--nosignature", "--qf", f"[%{{{kind}}}\n]", *paths]
    return set(subprocess.run(query, check=True, capture_output=True, text=True).stdout.split("\n")) - {""}


def make_stub(base_url: str, arch: str) -> Path:
    """Build the stub package."""
    paths = packages_of(base_url, "noarch") + packages_of(base_url, arch)
    required = capabilities("REQUIRENAME", paths) - capabilities("PROVIDENAME", paths)
    missing = sorted(name for name in required if not name.startswith("rpmlib("))
    spec = Path("/tmp/stub.spec")
    lines = "\n".join(f"Provides: {name}" for name in missing)
    spec.write_text(
        "Name: distribution-stub\nVersion: 1\nRelease: 1\nSummary: Stands for the distribution\n"
        f"License: LGPL-2.1-only\nBuildArch: noarch\nAutoReqProv: no\n{lines}\n"
        "%description\nProvides what the distribution itself would.\n%files\n"
    )
    run("rpmbuild", "-bb", "-D", "_rpmdir /tmp/stub", str(spec))
    print(f"the stub stands for: {', '.join(missing)}")
    return Path("/tmp/stub/noarch/distribution-stub-1-1.noarch.rpm")


def run(*command: str) -> None:
    """Run a command; its failure ends this script."""
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


def main() -> None:
    """Install the stub, our release rpm, then the packages from what that rpm points at."""
    base_url, release_rpm, arch, program, *packages = sys.argv[1:]
    dnf = ["dnf", "-y", "--installroot", str(INSTALL_ROOT), "--releasever", "9", "--forcearch", arch]
    reposdir = f"--setopt=reposdir={INSTALL_ROOT}/etc/yum.repos.d"
    stub = make_stub(base_url, arch)
    run(*dnf, reposdir, "install", str(stub), f"{base_url}/{release_rpm}")
    run(*dnf, reposdir, "install", *packages)
    # The libraries are those of the root around: this runs a program of the packages, not a system.
    run("sh", "-c", program.replace("@ROOT@", str(INSTALL_ROOT)))


main()
