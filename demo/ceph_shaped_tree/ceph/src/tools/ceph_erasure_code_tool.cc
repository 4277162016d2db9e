#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "common/crc32c.h"
#include "reed_solomon.h"

namespace {

using erasure_code::Chunk;
using erasure_code::ReedSolomon;
namespace fs = std::filesystem;

constexpr const char* usage =
    "usage: ceph-erasure-code-tool encode K M FILE      writes FILE.0, FILE.1, ...\n"
    "       ceph-erasure-code-tool decode K M FILE SIZE writes FILE from the chunks that are left\n"
    "       ceph-erasure-code-tool test\n";

Chunk read_file(const fs::path& path) {
  std::ifstream input(path, std::ios::binary);
  input.exceptions(std::ios::badbit);
  return Chunk(std::istreambuf_iterator<char>(input), std::istreambuf_iterator<char>());
}

void write_file(const fs::path& path, const Chunk& content) {
  std::ofstream output(path, std::ios::binary);
  output.exceptions(std::ios::badbit | std::ios::failbit);
  output.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  output.close();
  std::cout << path.string() << " crc32c " << std::hex << crc32c(0, content.data(), content.size()) << std::dec << "\n";
}

std::vector<Chunk> split(Chunk content, unsigned k) {
  const std::size_t chunk_size = (content.size() + k - 1) / k;
  content.resize(chunk_size * k, 0);
  std::vector<Chunk> chunks;
  for (unsigned i = 0; i < k; ++i) {
    chunks.emplace_back(content.begin() + i * chunk_size, content.begin() + (i + 1) * chunk_size);
  }
  return chunks;
}

Chunk joined(const std::vector<Chunk>& chunks, std::size_t size) {
  Chunk content;
  for (const Chunk& chunk : chunks) {
    content.insert(content.end(), chunk.begin(), chunk.end());
  }
  content.resize(size);
  return content;
}

void encode(unsigned k, unsigned m, const std::string& file) {
  std::vector<Chunk> chunks = split(read_file(file), k);
  for (Chunk& chunk : ReedSolomon(k, m).encode(chunks)) {
    chunks.push_back(std::move(chunk));
  }
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    write_file(file + "." + std::to_string(i), chunks[i]);
  }
}

void decode(unsigned k, unsigned m, const std::string& file, std::size_t size) {
  std::map<unsigned, Chunk> available;
  for (unsigned i = 0; i < k + m; ++i) {
    const fs::path path = file + "." + std::to_string(i);
    if (fs::exists(path)) {
      available.emplace(i, read_file(path));
    }
  }
  write_file(file, joined(ReedSolomon(k, m).decode(available), size));
}

// Loses every choice of m chunks in turn, and wants the data back each time.
int test() {
  constexpr unsigned k = 4;
  constexpr unsigned m = 2;
  std::mt19937 generator(19);
  Chunk content(10007);
  for (auto& byte : content) {
    byte = static_cast<std::uint8_t>(generator());
  }
  const ReedSolomon code(k, m);
  const std::vector<Chunk> data = split(content, k);
  const std::vector<Chunk> coding = code.encode(data);
  for (unsigned first = 0; first < k + m; ++first) {
    for (unsigned second = first + 1; second < k + m; ++second) {
      std::map<unsigned, Chunk> available;
      for (unsigned i = 0; i < k + m; ++i) {
        if (i != first && i != second) {
          available.emplace(i, i < k ? data[i] : coding[i - k]);
        }
      }
      if (joined(code.decode(available), content.size()) != content) {
        std::cerr << "without chunks " << first << " and " << second << " the data is not the same\n";
        return 1;
      }
    }
  }
  std::cout << "any " << k << " of " << k + m << " chunks give the data back\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 1 && arguments[0] == "test") {
      return test();
    }
    if (arguments.size() == 4 && arguments[0] == "encode") {
      encode(std::stoul(arguments[1]), std::stoul(arguments[2]), arguments[3]);
      return 0;
    }
    if (arguments.size() == 5 && arguments[0] == "decode") {
      decode(std::stoul(arguments[1]), std::stoul(arguments[2]), arguments[3], std::stoull(arguments[4]));
      return 0;
    }
  } catch (const std::exception& error) {
    std::cerr << "ceph-erasure-code-tool: " << error.what() << "\n";
    return 1;
  }
  std::cerr << usage;
  return 2;
}
