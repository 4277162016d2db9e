#pragma once

#include <array>

// The names of CRUSH's bucket types, from a single device to everything.
namespace crush {

constexpr std::array<const char*, 5> types = {"osd", "host", "rack", "datacenter", "root"};

}  // namespace crush
