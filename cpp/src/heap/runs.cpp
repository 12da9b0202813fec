/// Free runs of chunks kept warm: merged with their neighbours, cut for the next block, given back beyond the
/// limit. Everything here is under the lock `pool` of this process.
#include <new>
#include <utility>

#include "heap/heap.hpp"

namespace sharedmem {
namespace {

constexpr auto relaxed = std::memory_order_relaxed;

}  // namespace

bool heap::is_cached_run(const slab* s) const noexcept {
  return s != nullptr && s->size_class == no_class && cached_runs.contains({s->run, s->chunk});
}

void heap::note_cached() noexcept { words.slot(slot()).cached.store(cached_bytes, relaxed); }

std::uint64_t heap::cached_everywhere() const noexcept {
  std::uint64_t sum = 0;
  const auto mark = static_cast<std::uint32_t>(words.head().slot_mark.load(relaxed));
  for (std::uint32_t s = 0; s < mark && s < words.slots(); ++s) {
    // Freeing a block of a process that has just been repaired adds to a slot that is VOID by now.
    if (words.slot(s).ctl.load(relaxed) != 0) sum += words.slot(s).cached.load(relaxed);
  }
  return sum;
}

/// Gives the pages of a run back to the system; false: it could not, and they stay.
bool heap::empty_run(const slab& run) noexcept {
  mapping& memory = words.extent_of_chunk(run.chunk).memory;
  return memory.discard(static_cast<std::size_t>(run.data - memory.data()),
                        static_cast<std::size_t>(run.block_bytes));
}

/// Removes a run from the list; its node is for `list_cached`, which then needs no memory.
heap::run_node heap::remove_cached(slab* run) noexcept {
  cached_bytes -= run->block_bytes;
  return cached_runs.extract({run->run, run->chunk});
}

/// Merges a free run with its neighbours and puts it into the list; `run` is then what it became. False, only
/// if there is no node, because there is no private memory for one: the run is left to the next `sweep_all`.
bool heap::list_cached(slab*& run, run_node node) noexcept {
  run->zeroed = false;
  run->carved = 1;
  const extent& e = words.extent_of_chunk(run->chunk);
  if (run->chunk > e.first_chunk)
    if (slab* left = owned[run->chunk - 1]; is_cached_run(left)) {
      node = remove_cached(left);
      run = merge(left, run);
    }
  if (run->chunk + run->run < e.first_chunk + e.chunks)
    if (slab* right = owned[run->chunk + run->run]; is_cached_run(right)) {
      node = remove_cached(right);
      run = merge(run, right);
    }
  try {
    if (node.empty()) {
      cached_runs.insert({run->run, run->chunk});
    } else {
      node.value() = {run->run, run->chunk};
      cached_runs.insert(std::move(node));
    }
  } catch (const std::bad_alloc&) {
    run->states[0].store(use::unlisted, relaxed);
    return false;
  }
  run->states[0].store(use::listed, relaxed);
  cached_bytes += run->block_bytes;
  return true;
}

/// Puts a free run into the list, whatever the limit. False: that could not be done, and its pages were given back.
bool heap::keep_run(slab* run, run_node node) noexcept {
  const bool listed = list_cached(run, std::move(node));
  note_cached();
  if (!listed && empty_run(*run)) unclaim(run);
  return listed;
}

void heap::cache_run(slab* run, run_node node) noexcept {
  if (keep_run(run, std::move(node))) limit_cache(words.head().cache_limit.load(relaxed));
}

slab* heap::uncache(std::uint32_t chunks) {
  const auto found = cached_runs.lower_bound({chunks, 0});
  if (found == cached_runs.end()) return nullptr;
  slab* run = owned[found->second];
  run_node node = remove_cached(run);
  if (run->run > chunks) {
    slab* tail = nullptr;
    try {
      tail = split(run, chunks);
    } catch (const std::bad_alloc&) {
      cache_run(run, std::move(node));
      throw;
    }
    cache_run(tail, std::move(node));  // cannot merge, since its neighbours are in use
  }
  note_cached();
  return run;
}

std::uint64_t heap::limit_cache(std::uint64_t limit) noexcept {
  std::uint64_t given = 0;
  for (std::uint64_t total = cached_everywhere(); total > limit && !cached_runs.empty();) {
    slab* run = owned[cached_runs.rbegin()->second];
    const std::uint64_t surplus = (total - limit + chunk_bytes - 1) / chunk_bytes;
    run_node node = remove_cached(run);
    if (run->run > surplus) {
      try {
        slab* tail = split(run, static_cast<std::uint32_t>(run->run - surplus));
        list_cached(run, std::exchange(node, {}));
        run = tail;
      } catch (const std::bad_alloc&) {  // give all of it
      }
    }
    const std::uint64_t bytes = run->block_bytes;
    if (!empty_run(*run)) {
      list_cached(run, std::move(node));
      break;
    }
    unclaim(run);
    given += bytes;
    note_cached();
    total = cached_everywhere();
  }
  note_cached();
  return given;
}

void heap::give_back_fragments(std::uint64_t bytes) noexcept {
  const std::uint64_t goal = cached_bytes > bytes ? cached_bytes - bytes : 0;
  while (cached_bytes > goal && !cached_runs.empty()) {
    slab* run = owned[cached_runs.begin()->second];
    if (!empty_run(*run)) return;
    remove_cached(run);
    unclaim(run);
  }
  note_cached();
}

}  // namespace sharedmem
