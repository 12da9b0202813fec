#include "segment/mapping.hpp"

#include <stdexcept>
#include <string>
#include <utility>

#include <sharedmem/error.hpp>

#include "os/pages.hpp"

namespace sharedmem {
namespace {

void require(bool accepted, const os::segment& object) {
  if (!accepted) throw stale_handle(object.text() + " belongs to another arena");
}

}  // namespace

mapping mapping::create(backing kind, std::size_t bytes, std::uint64_t tag) {
  const std::size_t page = os::page_size();
  if (bytes > SIZE_MAX - page) throw std::invalid_argument("segment too large");
  mapping made{os::segment::create(kind, (bytes + page - 1) / page * page, tag)};
  (void)os::punching_works();  // now, while there is a page to try it with
  return made;
}

mapping mapping::attach(const segment_name& name, std::size_t bytes, std::uint64_t tag, verifier verify,
                        void* context) {
  if (bytes == 0 || bytes % os::page_size() != 0) {
    throw std::invalid_argument("a segment of " + std::to_string(bytes) + " bytes");
  }
  os::segment found = os::segment::open(name, tag);
  if (found.bytes() != bytes) {
    throw stale_handle(found.text() + " has " + std::to_string(found.bytes()) + " bytes, not " +
                       std::to_string(bytes));
  }
  require(found.look(verify, context), found);
  found.attach();
  require(verify(found.data(), bytes, context), found);
  (void)os::punching_works();
  return mapping{std::move(found)};
}

bool mapping::examine(const segment_name& name, std::uint64_t tag, verifier look, void* context) {
  return os::segment::open(name, tag).look(look, context);
}

mapping mapping::view_read_only() const {
  mapping view{object_.attach_read_only()};
  view.prefer_huge(0, view.size());
  return view;
}

std::size_t mapping::resident() const noexcept {
  const std::uint64_t bytes = object_.resident();
  return bytes < SIZE_MAX ? static_cast<std::size_t>(bytes) : SIZE_MAX;
}

bool mapping::holds(std::size_t offset, std::size_t bytes) const noexcept {
  return bytes != 0 && offset <= size() && bytes <= size() - offset;
}

bool mapping::discard(std::size_t offset, std::size_t bytes) noexcept {
  // The kernel would round the length up, over bytes that were not given back.
  const std::size_t page = os::page_size();
  if (!holds(offset, bytes) || offset % page != 0 || bytes % page != 0) return false;
  return os::punch(data() + offset, bytes);
}

void mapping::guard(std::size_t offset, std::size_t bytes) noexcept {
  if (holds(offset, bytes)) os::forbid(data() + offset, bytes);
}

void mapping::prefer_huge(std::size_t offset, std::size_t bytes) noexcept {
  if (holds(offset, bytes)) os::want_huge(data() + offset, bytes);
}

}  // namespace sharedmem
