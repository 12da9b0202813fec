#pragma once

/// \file
/// The numbered steps between which a process may die: each is a name in the list below, and
/// `step<point::x>()` stands in the code right after the store it is named for. In a build with
/// SHAREDMEM_FAULT_POINTS the environment variable SHAREDMEM_FAULT="name:count" makes the process kill
/// itself (SIGKILL) at the count-th pass through that step, and "name:count:stop" stops it there (SIGSTOP) until it
/// receives SIGCONT; in other builds a step does nothing.
#include <cstdint>

// clang-format off
#define SHAREDMEM_POINTS(X) \
  X(publish_bit) X(publish_live) X(clear_bit) X(set_freeing) X(back_to_live) X(set_free) \
  X(set_emptying) X(pages_emptied) X(lease_filling) X(lease_described) X(lease_hinted) \
  X(lease_out) X(lease_loading) X(acquire_bit) X(acquire_confirmed) X(acquire_backed_out) \
  X(lease_vacant) X(lease_returned) X(lease_taken_over) X(lease_keeper_named) X(lease_kept) X(repair_claimed) X(repair_bits) X(repair_chunks) \
  X(repair_leases) X(repair_swept) X(repair_done) X(fork_reserved) X(fork_bits) \
  X(fork_child_started) X(fork_adopted) X(fork_parent_back) X(join_census) X(join_attached) \
  X(join_active) X(leave_claimed) X(leave_done) X(chunk_claimed) X(chunk_run_named) X(chunk_cut) \
  X(chunk_split) X(chunk_merged) X(chunk_shrunk) X(chunk_given_back) X(chunk_adopted) \
  X(birth_segment) X(birth_census) X(birth_header) X(birth_done) X(extent_created) \
  X(extent_joined) X(ending_marked) X(linger_forked) X(linger_started) \
  X(name_filling) X(name_written) X(name_claiming) X(name_taken_away) X(name_building) X(name_described) \
  X(name_ready) X(name_failed) X(name_vacated) X(host_looked) X(host_made) X(host_attached) X(host_begun) X(host_open) \
  X(host_published) X(host_condemned) \
  X(queue_locked) X(queue_put_noted) X(queue_written) X(queue_leases_kept) X(queue_put_committed) \
  X(queue_put_done) X(queue_copied) X(queue_get_noted) X(queue_get_committed) X(queue_leases_taken) \
  X(queue_get_done) X(queue_ring_noted) X(queue_ring_kept) X(queue_ring_copied) X(queue_ring_committed) \
  X(queue_ring_done) X(queue_unlocked) X(queue_repaired)
// clang-format on

namespace sharedmem {

enum class point : std::uint16_t {
#define SHAREDMEM_POINT(name) name,
  SHAREDMEM_POINTS(SHAREDMEM_POINT)
#undef SHAREDMEM_POINT
      count
};

/// Name of a step, or nullptr past the last one. Threads: any.
const char* point_name(unsigned index) noexcept;

#ifdef SHAREDMEM_FAULT_POINTS
void pass(point where) noexcept;
template <point where>
inline void step() noexcept {
  pass(where);
}
#else
template <point where>
inline void step() noexcept {}
#endif

}  // namespace sharedmem
