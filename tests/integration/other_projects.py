"""Small repositories of the shape of Ceph's neighbours: where the spec stands, how tags and archives are named, what is odd."""

from __future__ import annotations

CEPH_ISCSI = {
    "gwcli.py": '#!/usr/bin/env python3\nprint("an iSCSI gateway")\n',
    "ceph-iscsi.spec": """\
Name:           ceph-iscsi
Version:        3.2
Release:        1%{?dist}
Summary:        Python modules for Ceph iSCSI gateway configuration management
License:        GPLv3+
Source0:        https://github.com/ceph/ceph-iscsi/archive/%{version}/%{name}-%{version}.tar.gz
BuildArch:      noarch
BuildRequires:  python3-devel
%description
Python package, backed by Ceph RBD.
%prep
%autosetup -p1
%install
install -D -m 755 gwcli.py %{buildroot}%{_bindir}/gwcli
%files
%{_bindir}/gwcli
""",
}
"""Tags without `v`, a source given by URL."""

TCMU_RUNNER = {
    "CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.18)
project(tcmu C)
option(with-rbd "build the rbd handler" true)
add_library(tcmu SHARED tcmu.c)
set_target_properties(tcmu PROPERTIES VERSION 2.2 SOVERSION 2)
add_executable(tcmu-runner runner.c)
target_link_libraries(tcmu-runner tcmu)
target_compile_definitions(tcmu PRIVATE RBD="${with-rbd}")
install(TARGETS tcmu LIBRARY DESTINATION lib64)
install(TARGETS tcmu-runner DESTINATION bin)
""",
    "tcmu.c": "const char *handlers(void) { return RBD; }\n",
    "runner.c": '#include <stdio.h>\nconst char *handlers(void);\nint main(void) { return printf("rbd handler: %s\\n", handlers()) < 0; }\n',
    "extra/make_rpms.sh": "#!/bin/sh\necho 'not called'\nexit 1\n",
    "tcmu-runner.spec": """\
# Build it without a handler: rpmbuild -ta @PACKAGE_NAME@-@PACKAGE_VERSION@.tar.gz --without rbd
%bcond_without rbd

Name:          tcmu-runner
Summary:       Handles the userspace side of a SCSI target
License:       ASL 2.0 or LGPLv2+
Version:       1.5.4
URL:           https://github.com/open-iscsi/tcmu-runner

#%define _RC
Release:       %{?_RC:%{_RC}}%{dist}
Source:       %{name}-%{version}%{?_RC:-%{_RC}}.tar.gz
ExclusiveOS:   Linux
BuildRequires: cmake make gcc
%if %{with rbd}
BuildRequires: librbd1-devel librados2-devel
%endif
Requires:      libtcmu = %{version}-%{release}

%description
A daemon.

%package -n libtcmu
Summary:       The library below it

%description -n libtcmu
A library.

%package -n libtcmu-devel
Summary:       Development files of the library
Requires:      libtcmu = %{version}-%{release}

%description -n libtcmu-devel
For developers.

%global debug_package %{nil}

%prep
%setup -n %{name}-%{version}%{?_RC:-%{_RC}}

%build
cmake -DCMAKE_INSTALL_PREFIX=%{_usr} -DCMAKE_SKIP_RPATH=ON %{?_without_rbd:-Dwith-rbd=false} .
make

%install
make DESTDIR=%{buildroot} install

%files
%{_bindir}/tcmu-runner

%files -n libtcmu
%{_usr}/lib64/libtcmu.so.*

%files -n libtcmu-devel
%{_usr}/lib64/libtcmu.so
""",
}
"""Rpms only, some of which do not have the project's name; `Source` without a number, a Release that our own replaces, a macro in
a comment, one switch per handler, a script for rpms that nobody but its users calls."""

CEPH_DEPLOY = {
    "scripts/ceph-deploy": "#!/usr/bin/python3\nprint('deploys')\n",
    "ceph_deploy/__init__.py": "__version__ = '2.0.1'\n",
    "README.rst": "ceph-deploy\n",
    "ceph-deploy.spec": """\
#
# spec file for package ceph-deploy
#
Name:\t\tceph-deploy
Version: \t2.0.1
Release: \t0
Summary: \tDeploys Ceph
License: \tMIT
Group:   \tSystem/Filesystems
Source0: \t%{name}-%{version}.tar.bz2
BuildRoot:      %{_tmppath}/%{name}-%{version}-build
%if 0%{?suse_version}
BuildRequires:  python-pytest
%else
BuildRequires:  pytest
%endif
BuildArch:      noarch
%if 0%{defined suse_version}
%py_requires
%endif

%description
Deploys.

%prep
#%%setup -q -n %%{name}
%setup -q

%build

%install
install -m 0755 -D scripts/ceph-deploy $RPM_BUILD_ROOT/usr/bin/ceph-deploy
install -m 0644 -D ceph_deploy/__init__.py $RPM_BUILD_ROOT/usr/share/ceph-deploy/ceph_deploy/__init__.py

%clean
[ "$RPM_BUILD_ROOT" != "/" ] && rm -rf "$RPM_BUILD_ROOT"

%files
%defattr(-,root,root)
%doc README.rst
%{_bindir}/ceph-deploy
/usr/share/ceph-deploy

%changelog
""",
    "debian/changelog": """\
ceph-deploy (2.0.1) stable; urgency=medium

  * New upstream release

 -- A Contributor <contributor@example.org>  Wed, 17 Jan 2018 13:17:46 +0000
""",
    "debian/compat": "9\n",
    "debian/control": """\
Source: ceph-deploy
Maintainer: A Contributor <contributor@example.org>
Section: admin
Priority: optional
Build-Depends: debhelper (>= 9)
Standards-Version: 3.9.2

Package: ceph-deploy
Architecture: all
Depends: ${misc:Depends}
Description:  Deploys Ceph
 It is small.
""",
    "debian/rules": "#!/usr/bin/make -f\n\nexport DH_VERBOSE=1\n\n%:\n\tdh $@\n",
    "debian/ceph-deploy.install": "scripts/ceph-deploy usr/bin\nceph_deploy usr/share/ceph-deploy\n",
}
"""Debs and rpms from one tree: a version without a revision in the changelog, no debian/source/format, a source `.tar.bz2`, tabs in
the spec."""
