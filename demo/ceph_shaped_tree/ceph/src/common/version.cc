#include "common/version.h"

#include <sstream>

#include "ceph_ver.h"

std::string pretty_version() {
  std::ostringstream line;
  line << "ceph version " << CEPH_GIT_NICE_VER << " (" << CEPH_GIT_VER << ") " << CEPH_RELEASE_NAME << " ("
       << CEPH_RELEASE_TYPE << " - " << CEPH_BUILD_TYPE << ")";
  return line.str();
}
