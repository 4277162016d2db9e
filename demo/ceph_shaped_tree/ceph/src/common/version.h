#pragma once

#include <string>

// The line that `ceph --version` prints, without its newline.
std::string pretty_version();
