#include <exception>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

#include "common/version.h"
#include "crush/placement.h"
#include "crush_types.h"

namespace {

constexpr const char* usage =
    "usage: ceph --version\n"
    "       ceph osd crush types\n"
    "       ceph osd map POOL OBJECT [OSDS]\n";

int osd_map(const std::string& pool, const std::string& object, unsigned osds) {
  const Placement placement = place(pool, object, 128, std::vector<double>(osds, 1.0), 3);
  std::cout << "pool '" << pool << "' object '" << object << "' -> pg " << std::hex << placement.placement_group << std::dec
            << " -> up [";
  const char* separator = "";
  for (const unsigned osd : placement.osds) {
    std::cout << separator << osd;
    separator = ",";
  }
  std::cout << "]\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 1 && (arguments[0] == "--version" || arguments[0] == "-v")) {
      std::cout << pretty_version() << "\n";
      return 0;
    }
    if (arguments.size() == 1 && (arguments[0] == "--help" || arguments[0] == "-h")) {
      std::cout << usage;
      return 0;
    }
    if (arguments == std::vector<std::string>{"osd", "crush", "types"}) {
      for (const char* type : crush::types) {
        std::cout << type << "\n";
      }
      return 0;
    }
    if (arguments.size() >= 4 && arguments.size() <= 5 && arguments[0] == "osd" && arguments[1] == "map") {
      return osd_map(arguments[2], arguments[3], arguments.size() == 5 ? std::stoul(arguments[4]) : 6);
    }
  } catch (const std::exception& error) {
    std::cerr << "ceph: " << error.what() << "\n";
    return 1;
  }
  std::cerr << usage;
  return 2;
}
