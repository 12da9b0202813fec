#include <sharedmem/segment.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <sharedmem/error.hpp>

#include "os/identity.hpp"
#include "os/linux/sysv.hpp"
#include "os/pages.hpp"
#include "os/segment.hpp"

namespace sharedmem {
namespace {

// Whether the key is one that the segment's maker would have given it.
bool has_our_key(const os::sysv_table::row& r, std::uint32_t keys) noexcept {
  const auto maker = static_cast<std::uint32_t>(r.status.creator_pid);
  for (std::uint32_t attempt = 0; attempt < os::keys_of_maker; ++attempt)
    if (r.key == os::sysv_key(keys, maker, r.status.bytes, attempt)) return true;
  return false;
}

// Whether the page holds what a census has before it is marked for removal, and nothing else.
bool is_unmarked_census(const os::sysv_table::row& r) noexcept {
  const std::size_t bytes = os::page_size();
  if (r.status.bytes != bytes) return false;
  try {
    os::reservation room{bytes};
    os::sysv_attach(r.id, room, os::access::read);  // unmapped with its room, which detaches it
    const auto* page = reinterpret_cast<const char*>(room.base());
    const char* const behind = page + sizeof os::census_magic;
    const auto is_zero = [](char byte) { return byte == 0; };
    return (std::memcmp(page, os::census_magic, sizeof os::census_magic) == 0 ||
            std::all_of(page, behind, is_zero)) &&
           std::all_of(behind, page + bytes, is_zero);
  } catch (const error&) {
    return false;
  }
}

bool is_orphan(const os::sysv_table::row& r) noexcept {
  const std::uint32_t user = effective_user();
  const os::sysv_status& s = r.status;
  if (s.owner != user || s.creator != user || s.mode != 0600 || s.removed || s.attaches != 0) return false;
  if (s.creator_pid <= 0 || os::probe(static_cast<std::uint32_t>(s.creator_pid)) != ESRCH) return false;
  // A dead creator cannot open its candidate any more; a process that finds it removed makes another.
  if (const std::size_t beyond = s.bytes % os::huge_page_size;
      (r.key & os::meeting_key_mask) == os::meeting_keys && beyond >= os::meeting_size)
    return beyond < os::meeting_size + os::segment::tags && s.bytes > os::huge_page_size;
  // No process writes into an arena before it is marked for removal.
  if (has_our_key(r, os::arena_keys)) return r.resident == 0;
  return has_our_key(r, os::census_keys) && is_unmarked_census(r);
}

}  // namespace

std::size_t sweep_orphans() noexcept {
  std::size_t removed = 0;
  os::sysv_table table;
  for (os::sysv_table::row r; table.next(r);) {
    if (!is_orphan(r)) continue;
    os::sysv_status now;  // the table is read in parts, so its rows may be out of date
    if (os::sysv_look(r.id, now) == 0 && now.same_segment(r.status) && now.attaches == 0 && !now.removed &&
        os::sysv_remove(r.id) == 0)
      ++removed;
  }
  return removed;
}

}  // namespace sharedmem
