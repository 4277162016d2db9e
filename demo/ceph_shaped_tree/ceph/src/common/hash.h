#pragma once

#include <cstdint>
#include <string_view>

// FNV-1a: the same value on every machine, so a placement computed anywhere is the placement.
std::uint64_t hash_name(std::string_view name);

// A well mixed value of two others.
std::uint64_t hash_pair(std::uint64_t a, std::uint64_t b);
