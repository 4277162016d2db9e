#pragma once

#include <istream>
#include <map>
#include <optional>
#include <string>

// A ceph.conf: sections of `option = value`, in which "osd pool size" and "osd_pool_size" are one option.
class ConfFile {
 public:
  // Throws std::runtime_error that names the line which is neither section, option nor comment.
  static ConfFile parse(std::istream& input);

  // The value in `section`, else in [global].
  std::optional<std::string> get(const std::string& section, const std::string& option) const;

 private:
  std::map<std::string, std::map<std::string, std::string>> sections_;
};
