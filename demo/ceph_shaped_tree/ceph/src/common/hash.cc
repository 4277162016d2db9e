#include "common/hash.h"

std::uint64_t hash_name(std::string_view name) {
  std::uint64_t value = 0xcbf29ce484222325u;
  for (const unsigned char byte : name) {
    value = (value ^ byte) * 0x100000001b3u;
  }
  return value;
}

std::uint64_t hash_pair(std::uint64_t a, std::uint64_t b) {
  std::uint64_t value = a * 0x9e3779b97f4a7c15u + b;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}
