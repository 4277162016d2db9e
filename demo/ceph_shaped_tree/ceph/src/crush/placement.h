#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Placement {
  std::uint32_t placement_group;
  std::vector<unsigned> osds;
};

// Where an object lives: `size` different OSDs, each drawn in proportion to its weight, and nearly all of them unmoved when an
// OSD is added. Throws std::invalid_argument when fewer than `size` OSDs have a weight.
Placement place(const std::string& pool, const std::string& object, std::uint32_t placement_groups,
                const std::vector<double>& weights, unsigned size);
