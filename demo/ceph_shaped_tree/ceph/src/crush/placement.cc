#include "crush/placement.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "common/hash.h"

Placement place(const std::string& pool, const std::string& object, std::uint32_t placement_groups,
                const std::vector<double>& weights, unsigned size) {
  const auto group = static_cast<std::uint32_t>(hash_name(object) % placement_groups);
  const std::uint64_t seed = hash_pair(hash_name(pool), group);

  // Each OSD draws a straw whose length its weight stretches; the longest win.
  std::vector<std::pair<double, unsigned>> straws;
  for (unsigned osd = 0; osd < weights.size(); ++osd) {
    if (weights[osd] > 0) {
      const double uniform = (static_cast<double>(hash_pair(seed, osd) >> 11) + 0.5) / 9007199254740992.0;
      straws.emplace_back(std::log(uniform) / weights[osd], osd);
    }
  }
  if (straws.size() < size) {
    throw std::invalid_argument("expected " + std::to_string(size) + " OSDs with a weight, got " +
                                std::to_string(straws.size()));
  }
  std::sort(straws.rbegin(), straws.rend());

  Placement placement{group, {}};
  for (unsigned i = 0; i < size; ++i) {
    placement.osds.push_back(straws[i].second);
  }
  return placement;
}
