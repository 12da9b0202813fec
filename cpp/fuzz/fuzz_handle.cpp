// Any bytes: `decode` either refuses them or returns a handle that encodes and decodes to itself, and
// what `fits` allows lies within the block; `find_handle` finds it between other bytes, if it is of this host.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include <sharedmem/handle.hpp>

#include "os/identity.hpp"
#include "wire.hpp"

namespace {

using sharedmem::geometry;
using sharedmem::handle;

void require(bool holds) {
  if (!holds) std::abort();
}

// Reads the outermost bytes of the array where it fits: a sanitizer sees it if they are outside.
void touch_corners(const geometry& g) {
  constexpr std::uint64_t block_bytes = 4096;
  if (!fits(g, block_bytes)) return;
  std::uint64_t low = g.offset, high = g.offset;
  for (int i = 0; i < g.ndim; ++i) {
    if (g.shape[i] == 0) return;
    const auto steps = static_cast<std::uint64_t>(g.shape[i] - 1);
    (g.strides[i] < 0 ? low : high) += steps * static_cast<std::uint64_t>(g.strides[i]);
  }
  const std::vector<unsigned char> block(block_bytes);
  volatile unsigned char sink = 0;
  if (g.itemsize != 0) sink = static_cast<unsigned char>(block[low] + block[high + g.itemsize - 1]);
  static_cast<void>(sink);
}

// Each search continues behind the handle that the previous one found.
void find_all(const std::vector<std::byte>& message) {
  handle h;
  for (std::size_t at = 0, next = 0; (next = find_handle(message, at, h)) != 0; at = next)
    require(next > at && next <= message.size());
}

void find_between_others(handle h) {
  constexpr std::size_t before = 3;
  h.where.host = sharedmem::host_id();
  std::vector<std::byte> message(before + sharedmem::max_handle_bytes + h.dtype.size());
  const std::size_t size = encode(h, std::span(message).subspan(before));
  handle found;
  require(find_handle(message, 0, found) == before + size);
  require(found.what.block == h.what.block && found.what.nonce == h.what.nonce &&
          found.where.uuid == h.where.uuid);
}

void check(std::vector<std::byte> wire) {
  handle h;
  try {
    h = sharedmem::decode(wire);
  } catch (const std::invalid_argument&) {
    return;
  }
  touch_corners(h.shape);
  std::vector<std::byte> again(sharedmem::max_handle_bytes + h.dtype.size());
  again.resize(encode(h, again));
  require(again.size() <= wire.size());
  const handle same = sharedmem::decode(again);
  require(same.what.generation == h.what.generation && same.what.lease == h.what.lease &&
          same.what.nonce == h.what.nonce);
  require(same.what.block == h.what.block && same.where.segment == h.where.segment &&
          same.where.uuid == h.where.uuid);
  require(same.shape.ndim == h.shape.ndim && same.shape.offset == h.shape.offset && same.dtype == h.dtype);
  for (int i = 0; i < h.shape.ndim; ++i)
    require(same.shape.shape[i] == h.shape.shape[i] && same.shape.strides[i] == h.shape.strides[i]);
  find_between_others(h);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> wire(size);
  if (size != 0) std::memcpy(wire.data(), data, size);
  check(wire);
  find_all(wire);

  // The same bytes with the right first byte and checksum: nothing else gets past these two by chance.
  if (size == 0) return 0;
  wire[0] = std::byte{0xa0 | sharedmem::handle_version};
  wire.resize(size + 4);
  sharedmem::wire::put_word(wire.data() + size, sharedmem::wire::checksum(wire.data(), size));
  check(wire);
  find_all(wire);
  return 0;
}
