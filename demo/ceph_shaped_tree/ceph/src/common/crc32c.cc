#include "common/crc32c.h"

#include <array>

namespace {

std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) {
      value = (value >> 1) ^ ((value & 1) ? 0x82f63b78u : 0u);
    }
    table[byte] = value;
  }
  return table;
}

}  // namespace

std::uint32_t crc32c(std::uint32_t crc, const unsigned char* data, std::size_t length) {
  static const auto table = make_table();
  crc = ~crc;
  for (std::size_t i = 0; i < length; ++i) {
    crc = (crc >> 8) ^ table[(crc ^ data[i]) & 0xff];
  }
  return ~crc;
}
