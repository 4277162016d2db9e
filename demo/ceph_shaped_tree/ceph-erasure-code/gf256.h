#pragma once

#include <cstdint>

// Arithmetic in GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1.
namespace gf256 {

std::uint8_t multiply(std::uint8_t a, std::uint8_t b);
// Throws std::domain_error on a division by zero.
std::uint8_t divide(std::uint8_t a, std::uint8_t b);

}  // namespace gf256
