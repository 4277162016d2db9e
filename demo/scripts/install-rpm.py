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

RPM = "{http://linux.duke.edu/metadata/rpm}entry"
INSTALL_ROOT = Path("/installed")


def entries(base_url: str, part: str) -> tuple[set[str], set[str]]:
    """Give what the packages of one repository provide and require."""
    with urllib.request.urlopen(f"{base_url}/{part}/repodata/primary.xml.gz") as answer:
        tree = ET.fromstring(gzip.decompress(answer.read()))
    provides, requires = set(), set()
    for element in tree.iter():
        kind = element.tag.rpartition("}")[2]
        if kind in ("provides", "requires"):
            names = {entry.attrib["name"] for entry in element.findall(RPM)}
            (provides if kind == "provides" else requires).update(names)
    return provides, requires


def make_stub(base_url: str, arch: str) -> Path:
    """Build the stub package."""
    provided, required = set(), set()
    for part in ("noarch", arch):
        provides, requires = entries(base_url, part)
        provided |= provides
        required |= requires
    missing = sorted(name for name in required - provided if not name.startswith("rpmlib("))
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
