#include <iostream>

#include "common/version.h"

int main() { std::cout << pretty_version() << "\n"; }
