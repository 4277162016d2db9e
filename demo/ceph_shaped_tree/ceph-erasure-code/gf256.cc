#include "gf256.h"

#include <array>
#include <stdexcept>

namespace gf256 {
namespace {

struct Tables {
  std::array<std::uint8_t, 255> power{};
  std::array<std::uint8_t, 256> logarithm{};

  Tables() {
    unsigned value = 1;
    for (unsigned exponent = 0; exponent < power.size(); ++exponent) {
      power[exponent] = static_cast<std::uint8_t>(value);
      logarithm[value] = static_cast<std::uint8_t>(exponent);
      value <<= 1;
      if (value & 0x100) {
        value ^= 0x11d;
      }
    }
  }
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

}  // namespace

std::uint8_t multiply(std::uint8_t a, std::uint8_t b) {
  if (a == 0 || b == 0) {
    return 0;
  }
  const Tables& t = tables();
  return t.power[(t.logarithm[a] + t.logarithm[b]) % 255];
}

std::uint8_t divide(std::uint8_t a, std::uint8_t b) {
  if (b == 0) {
    throw std::domain_error("division by zero in GF(2^8)");
  }
  if (a == 0) {
    return 0;
  }
  const Tables& t = tables();
  return t.power[(t.logarithm[a] + 255 - t.logarithm[b]) % 255];
}

}  // namespace gf256
