#include "common/conf_file.h"

#include <regex>
#include <stdexcept>

namespace {

std::string normalized(const std::string& option) {
  static const std::regex separators("[ \t_-]+");
  return std::regex_replace(option, separators, "_");
}

}  // namespace

ConfFile ConfFile::parse(std::istream& input) {
  static const std::regex blank("\\s*([#;].*)?");
  static const std::regex header("\\s*\\[\\s*([^\\]]+?)\\s*\\]\\s*([#;].*)?");
  static const std::regex assignment("\\s*([^=]+?)\\s*=\\s*(.*?)\\s*([#;].*)?");
  ConfFile file;
  std::string section = "global";
  std::string line;
  for (unsigned number = 1; std::getline(input, line); ++number) {
    std::smatch match;
    if (std::regex_match(line, blank)) {
      continue;
    }
    if (std::regex_match(line, match, header)) {
      section = match[1];
    } else if (std::regex_match(line, match, assignment)) {
      file.sections_[section][normalized(match[1])] = match[2];
    } else {
      throw std::runtime_error("line " + std::to_string(number) + " is neither section, option nor comment: " + line);
    }
  }
  return file;
}

std::optional<std::string> ConfFile::get(const std::string& section, const std::string& option) const {
  for (const std::string& name : {section, std::string("global")}) {
    const auto found = sections_.find(name);
    if (found == sections_.end()) {
      continue;
    }
    const auto value = found->second.find(normalized(option));
    if (value != found->second.end()) {
      return value->second;
    }
  }
  return std::nullopt;
}
