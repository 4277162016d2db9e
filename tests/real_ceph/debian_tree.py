"""A `debian/` with the package names, architectures, profiles and build dependencies of ceph.git's, typed by hand.

Debian's tarballs leave upstream's `debian/` out. As there, no `source/format` says which source format it is.
"""

from __future__ import annotations

import re

PACKAGES = """\
ceph                          any      ceph-mgr ceph-mon ceph-osd
ceph-base                     any-dbg  ceph-common
cephadm                       any
ceph-mds                      any-dbg  ceph-base
ceph-mgr                      any-dbg  ceph-base ceph-mgr-modules-core libsqlite3-mod-ceph librados2
ceph-mgr-dashboard            all      ceph-mgr ceph-mgr-smb
ceph-mgr-diskprediction-local all      ceph-mgr
ceph-mgr-modules-core         all
ceph-mgr-modules-standard     all      ceph-mgr-modules-core ceph-mgr-alerts ceph-mgr-telegraf
ceph-mgr-rook                 all      ceph-mgr ceph-mgr-nfs
ceph-mgr-k8sevents            all      ceph-mgr
ceph-mgr-cephadm              all      ceph-mgr ceph-mgr-nfs ceph-mgr-smb cephadm
ceph-mgr-cli-api              all      ceph-mgr
ceph-mgr-alerts               all      ceph-mgr
ceph-mgr-influx               all      ceph-mgr
ceph-mgr-insights             all      ceph-mgr
ceph-mgr-iostat               all      ceph-mgr
ceph-mgr-localpool            all      ceph-mgr
ceph-mgr-mds-autoscaler       all      ceph-mgr
ceph-mgr-mirroring            all      ceph-mgr
ceph-mgr-nfs                  all      ceph-mgr
ceph-mgr-nvmeof               all      ceph-mgr
ceph-mgr-osd-perf-query       all      ceph-mgr
ceph-mgr-osd-support          all      ceph-mgr
ceph-mgr-prometheus           all      ceph-mgr
ceph-mgr-rgw                  all      ceph-mgr
ceph-mgr-selftest             all      ceph-mgr
ceph-mgr-smb                  all      ceph-mgr
ceph-mgr-snap-schedule        all      ceph-mgr
ceph-mgr-stats                all      ceph-mgr
ceph-mgr-telegraf             all      ceph-mgr
ceph-mgr-test-orchestrator    all      ceph-mgr
ceph-exporter                 any-dbg  ceph-base
ceph-mon                      any-dbg  ceph-base
ceph-mon-client-nvmeof        any-dbg  librados2
ceph-osd                      any-dbg  ceph-osd-classic ceph-osd-crimson<pkg.ceph.crimson>
ceph-osd-classic              any-dbg  ceph-base
ceph-osd-crimson              any-dbg  ceph-base
ceph-volume                   all      ceph-osd
ceph-fuse                     any-dbg
cephfs-mirror                 any-dbg  ceph-common librados2 libcephfs2
rbd-fuse                      any-dbg
ceph-immutable-object-cache   any-dbg  ceph-common librados2
rbd-mirror                    any-dbg  ceph-common librados2
rbd-nbd                       any-dbg
ceph-common                   any-dbg  librbd1 python3-cephfs python3-ceph-argparse python3-ceph-common python3-rbd python3-rgw
ceph-resource-agents          any      ceph
librados2                     any-dbg
librados-dev                  any      librados2
libradospp-dev                any      librados-dev
libsqlite3-mod-ceph           any-dbg  librados2
libsqlite3-mod-ceph-dev       any      libsqlite3-mod-ceph
libradosstriper1              any-dbg  librados2
libradosstriper-dev           any      libradosstriper1
librbd1                       any-dbg  librados2
librbd-dev                    any      librados-dev librbd1
libcephfs2                    any-dbg
libcephfs-proxy2              any-dbg
libcephfs-daemon              any-dbg  libcephfs2
libcephfs-dev                 any      libcephfs2 libcephfs-proxy2
librgw2                       any-dbg  librados2
librgw-dev                    any      librados-dev librgw2
radosgw                       any-dbg  ceph-common librgw2
ceph-test                     any-dbg  ceph-common
python3-ceph                  any      python3-cephfs python3-rados python3-rbd python3-rgw
python3-rados                 any-dbg  librados2
python3-rbd                   any-dbg  librbd1
python3-rgw                   any-dbg  librgw2 python3-rados
python3-cephfs                any-dbg  libcephfs2 python3-rados python3-ceph-argparse
python3-ceph-argparse         all
python3-ceph-common           all
libcephfs-java                all      libcephfs-jni
libcephfs-jni                 any      libcephfs2
rados-objclass-dev            any      librados-dev
cephfs-shell                  all
cephfs-top                    all
ceph-grafana-dashboards       all
ceph-prometheus-alerts        all
"""
"""Name, architecture (`-dbg`: with a package of debugging symbols), dependencies of the same build."""

SOME_PACKAGES = ("ceph", "ceph-mgr-modules-core", "librados2")
"""For a build whose packages are not what the test looks at."""

ONLY_WITH_CRIMSON = ("ceph-osd-crimson", "ceph-osd-crimson-dbg")

BUILD_DEPENDS = """\
automake bison cmake cpio cython3 debhelper(>=10) default-jdk dh-exec dh-python flex git golang gperf g++(>=11)
javahelper junit4 libarrow-dev<pkg.ceph.arrow> libparquet-dev<pkg.ceph.arrow> libaio-dev libbabeltrace-dev
libblkid-dev libc-ares-dev<pkg.ceph.crimson> libcrypto++-dev<pkg.ceph.crimson> libcryptsetup-dev libcap-ng-dev
libcap-dev libcunit1-dev libcurl4-openssl-dev libevent-dev libexpat1-dev libfmt-dev libfuse-dev
libgoogle-perftools-dev[i386+amd64+arm64] libgnutls28-dev<pkg.ceph.crimson> libhwloc-dev<pkg.ceph.crimson>
libibverbs-dev libicu-dev libjerasure-dev librdmacm-dev libkeyutils-dev libldap2-dev liblttng-ust-dev liblua5.3-dev
liblz4-dev libnbd-dev libncurses-dev libnss3-dev liboath-dev libnuma-dev libpciaccess-dev<pkg.ceph.crimson>
libsctp-dev<pkg.ceph.crimson> libsnappy-dev libsqlite3-dev libssl-dev libtool liblmdb-dev libudev-dev
libnl-genl-3-dev libxml2-dev librabbitmq-dev libre2-dev libgrpc++-dev protobuf-compiler-grpc libutf8proc-dev
librdkafka-dev libthrift-dev libyaml-cpp-dev libdaxctl-dev<pkg.ceph.pmdk> libndctl-dev<pkg.ceph.pmdk>
libpmem-dev<pkg.ceph.pmdk> libpmemobj-dev<pkg.ceph.pmdk> libprotobuf-dev libxsimd-dev<!pkg.ceph.arrow> ninja-build
nlohmann-json3-dev patch pkg-config protobuf-compiler<pkg.ceph.crimson> python3-all-dev python3-cherrypy3
python3-natsort ragel<pkg.ceph.crimson> python3-jinja2 python3-markupsafe python3-pip python3-setuptools
python3-wheel python3-sphinx python3-venv python3-yaml systemd systemtap-sdt-dev<pkg.ceph.crimson> uuid-runtime
valgrind xfslibs-dev nasm[amd64] zlib1g-dev
"""
"""All that a build needs, less the packages for `make check`: hundreds of packages with their own dependencies."""

SOME_BUILD_DEPENDS = "debhelper(>=10) cpio nasm[amd64] libpmem-dev<pkg.ceph.pmdk> ragel<pkg.ceph.crimson>"
"""Build dependencies of the short tests; `nasm` is in no prepared root."""

FOR_MAKE_CHECK = """\
iproute2 jq jsonnet libffi-dev[!amd64] libzstd-dev prometheus python3-bcrypt tox python3-coverage python3-dateutil
python3-grpcio python3-jmespath python3-xmltodict python3-openssl python3-prettytable python3-requests python3-scipy
python3-onelogin-saml2 socat uuid-dev xmlstarlet
"""
"""Packages that only `<pkg.ceph.check>` installs."""

_HEAD = """\
Source: ceph
Section: admin
Priority: optional
Maintainer: On-demand Ceph packages <packages@example.invalid>
Build-Depends: {build_depends},
Standards-Version: 4.4.0
"""

_RULES_HEAD = """\
#!/usr/bin/make -f
include /usr/share/dpkg/default.mk
%:
\tdh $@ --parallel

override_dh_auto_configure:
\tenv | sort

override_dh_auto_build:
\tmkdir -p built
\tfor name in @PROGRAMS@; do \\
\t\tprintf '#include <stdio.h>\\nint main(void) { puts("%s %s"); return 0; }\\n' \\
\t\t\t"$$name" '$(CEPH_EXTRA_CMAKE_ARGS)' >built/stub.c && \\
\t\tgcc -g -o built/$$name built/stub.c || exit 1; \\
\tdone

override_dh_auto_install:
\tfor name in @PROGRAMS@; do install -D built/$$name debian/$$name/usr/bin/$$name || exit 1; done

ifeq ($(DWZ), false)
override_dh_dwz:
else
override_dh_dwz:
\tdh_dwz -Xceph-osd-crimson
endif

override_dh_strip:
"""

_CHANGELOG = """\
ceph ({version}-1) stable; urgency=medium

  * New upstream release

 -- On-demand Ceph packages <packages@example.invalid>  Thu, 20 Nov 2025 12:00:00 +0000
"""


def names() -> list[str]:
    """Return the names of all packages that a build without profiles makes, sorted."""
    stated = re.findall(r"^(\S+) +(any|all)(-dbg)?", PACKAGES, re.MULTILINE)
    every = [name for name, _, _ in stated] + [f"{name}-dbg" for name, _, debug in stated if debug]
    return sorted(set(every) - set(ONLY_WITH_CRIMSON))


def files(version: str, *, whole: bool, build_depends: str = SOME_BUILD_DEPENDS) -> dict[str, str]:
    """Return the files below `debian/`: of all packages, or of SOME_PACKAGES."""
    rows = [row.split() for row in PACKAGES.splitlines()]
    if not whole:
        rows = [[*row[:2]] for row in rows if row[0] in SOME_PACKAGES]
    depends = [_relation(word) for word in build_depends.split()]
    depends += [f"{_relation(word)} <pkg.ceph.check>" for word in FOR_MAKE_CHECK.split()]
    stanzas = [_HEAD.format(build_depends=",\n               ".join(depends))]
    for name, architecture, *related in rows:
        stanzas.append(_stanza(name, architecture, related))
        if architecture.endswith("-dbg"):
            stanzas.append(_debug_stanza(name))
    programs = [row[0] for row in rows if row[1] == "any-dbg" and row[0] not in ONLY_WITH_CRIMSON]
    strip = "".join(f"\tdh_strip -p{name} --dbg-package={name}-dbg\n" for name in programs)
    return {
        "debian/changelog": _CHANGELOG.format(version=version),
        "debian/compat": "10\n",
        "debian/control": "\n".join(stanzas),
        "debian/rules": _RULES_HEAD.replace("@PROGRAMS@", " ".join(programs)) + strip,
    }


def _relation(word: str) -> str:
    """Return `name (>= 1) [a b] <profile>` of the word that states it without spaces."""
    word = word.replace("(>=", " (>= ").replace("+amd64+", " amd64 ")
    return re.sub(r"(?<=\S)([\[<])", r" \1", word) if "(" not in word else word


def _stanza(name: str, architecture: str, related: list[str]) -> str:
    relations = [re.sub(r"^([^<]+)(<.*)?$", r"\1 (= ${binary:Version}) \2", word).strip() for word in related]
    depends = ",\n         ".join([*relations, "${misc:Depends}", "${shlibs:Depends}"])
    profiles = "Build-Profiles: <pkg.ceph.crimson>\n" if name in ONLY_WITH_CRIMSON else ""
    return (
        f"Package: {name}\n{profiles}Architecture: {'all' if architecture == 'all' else 'linux-any'}\n"
        f"Depends: {depends},\nDescription: stands for {name}\n"
    )


def _debug_stanza(name: str) -> str:
    profiles = "Build-Profiles: <pkg.ceph.crimson>\n" if name in ONLY_WITH_CRIMSON else ""
    others = "         libsqlite3-0-dbgsym,\n" if name == "libsqlite3-mod-ceph" else ""
    return (
        f"Package: {name}-dbg\n{profiles}Architecture: linux-any\nSection: debug\nPriority: extra\n"
        f"Depends: {name} (= ${{binary:Version}}),\n{others}         ${{misc:Depends}},\n"
        f"Description: debugging symbols for {name}\n"
    )
