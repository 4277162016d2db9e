#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace erasure_code {

using Chunk = std::vector<std::uint8_t>;

// A systematic code of k data chunks and m coding chunks: any k of the k + m give the data back.
class ReedSolomon {
 public:
  // Throws std::invalid_argument unless k > 0, m > 0 and k + m <= 256.
  ReedSolomon(unsigned k, unsigned m);

  // The m coding chunks of k data chunks of one size.
  std::vector<Chunk> encode(const std::vector<Chunk>& data) const;

  // The k data chunks from any k chunks by their index; throws std::runtime_error when there are fewer.
  std::vector<Chunk> decode(const std::map<unsigned, Chunk>& available) const;

 private:
  std::vector<std::uint8_t> row(unsigned index) const;

  unsigned k_;
  unsigned m_;
};

}  // namespace erasure_code
