#include "reed_solomon.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "gf256.h"

namespace erasure_code {
namespace {

void add_multiple(Chunk& target, const Chunk& source, std::uint8_t factor) {
  for (std::size_t i = 0; i < target.size(); ++i) {
    target[i] ^= gf256::multiply(source[i], factor);
  }
}

void scale(Chunk& target, std::uint8_t factor) {
  for (std::uint8_t& byte : target) {
    byte = gf256::multiply(byte, factor);
  }
}

}  // namespace

ReedSolomon::ReedSolomon(unsigned k, unsigned m) : k_(k), m_(m) {
  if (k == 0 || m == 0 || k + m > 256) {
    throw std::invalid_argument("k and m must be positive, and k + m at most 256");
  }
}

// The identity for a data chunk, a row of a Cauchy matrix for a coding chunk: every k rows are independent.
std::vector<std::uint8_t> ReedSolomon::row(unsigned index) const {
  std::vector<std::uint8_t> coefficients(k_, 0);
  for (unsigned column = 0; column < k_; ++column) {
    if (index < k_) {
      coefficients[column] = index == column;
    } else {
      coefficients[column] = gf256::divide(1, static_cast<std::uint8_t>(index ^ column));
    }
  }
  return coefficients;
}

std::vector<Chunk> ReedSolomon::encode(const std::vector<Chunk>& data) const {
  if (data.size() != k_) {
    throw std::invalid_argument("expected " + std::to_string(k_) + " data chunks, got " + std::to_string(data.size()));
  }
  std::vector<Chunk> coding;
  for (unsigned index = k_; index < k_ + m_; ++index) {
    const auto coefficients = row(index);
    Chunk chunk(data.front().size(), 0);
    for (unsigned column = 0; column < k_; ++column) {
      add_multiple(chunk, data[column], coefficients[column]);
    }
    coding.push_back(std::move(chunk));
  }
  return coding;
}

std::vector<Chunk> ReedSolomon::decode(const std::map<unsigned, Chunk>& available) const {
  if (available.size() < k_) {
    throw std::runtime_error("expected " + std::to_string(k_) + " chunks, got " + std::to_string(available.size()));
  }
  std::vector<std::vector<std::uint8_t>> matrix;
  std::vector<Chunk> chunks;
  for (const auto& [index, chunk] : available) {
    if (chunks.size() < k_) {
      matrix.push_back(row(index));
      chunks.push_back(chunk);
    }
  }
  for (unsigned pivot = 0; pivot < k_; ++pivot) {
    unsigned found = pivot;
    while (matrix[found][pivot] == 0) {
      ++found;
    }
    std::swap(matrix[found], matrix[pivot]);
    std::swap(chunks[found], chunks[pivot]);
    const std::uint8_t inverse = gf256::divide(1, matrix[pivot][pivot]);
    scale(matrix[pivot], inverse);
    scale(chunks[pivot], inverse);
    for (unsigned other = 0; other < k_; ++other) {
      const std::uint8_t factor = matrix[other][pivot];
      if (other != pivot && factor != 0) {
        add_multiple(matrix[other], matrix[pivot], factor);
        add_multiple(chunks[other], chunks[pivot], factor);
      }
    }
  }
  return chunks;
}

}  // namespace erasure_code
