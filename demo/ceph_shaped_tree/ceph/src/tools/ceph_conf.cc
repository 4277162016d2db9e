#include <exception>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "common/conf_file.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() != 3) {
    std::cerr << "usage: ceph-conf FILE SECTION OPTION\n";
    return 2;
  }
  try {
    std::ifstream input(arguments[0]);
    if (!input) {
      throw std::runtime_error("can't be read");
    }
    const auto value = ConfFile::parse(input).get(arguments[1], arguments[2]);
    if (!value) {
      return 1;
    }
    std::cout << *value << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "ceph-conf: " << arguments[0] << ": " << error.what() << "\n";
    return 2;
  }
}
