#pragma once

#include <cstddef>
#include <cstdint>

// The Castagnoli CRC of `length` bytes, continued from `crc`.
std::uint32_t crc32c(std::uint32_t crc, const unsigned char* data, std::size_t length);
