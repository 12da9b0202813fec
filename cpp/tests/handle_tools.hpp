/// \file
/// What tests of handles, geometries and locators have in common.
#pragma once

#include <doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include <sharedmem/handle.hpp>
#include "os/traits.hpp"

inline sharedmem::geometry shaped(std::vector<std::int64_t> shape, std::vector<std::int64_t> strides,
                                  std::uint32_t itemsize = 8, std::uint64_t offset = 0) {
  sharedmem::geometry g;
  g.offset = offset;
  g.itemsize = itemsize;
  g.ndim = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), g.shape);
  std::copy(strides.begin(), strides.end(), g.strides);
  return g;
}

inline void check_same(const sharedmem::locator& a, const sharedmem::locator& b) {
  CHECK(a.segment.kind == b.segment.kind);
  CHECK(a.segment.id == b.segment.id);
  CHECK(a.segment.pid == b.segment.pid);
  CHECK(a.bytes == b.bytes);
  CHECK(a.uuid == b.uuid);
  CHECK(a.host == b.host);
}
