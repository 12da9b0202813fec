#pragma once
/// \file
/// The leases of one message: references in flight that a transfer which delivers once takes for its arrays.
#include <Python.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <sharedmem/home.hpp>
#include <sharedmem_pyx/forking.hpp>

namespace sharedmem_pyx {

/// A message that is being pickled, and the leases of the handles in it. At its end they are given back,
/// unless it was pickled completely: then they belong to the process that loads it.
/// Threads: the one that made it, with the GIL where there is one.
/// Processes: a child that is forked meanwhile gives back only what it took itself.
class message {
 public:
  using uuid = std::array<std::uint64_t, 2>;

  message() noexcept = default;
  message(const message&) = delete;
  message& operator=(const message&) = delete;
  ~message() { end(false); }

  /// Whether what the calling thread pickles now may belong to the message.
  bool usable() const noexcept { return open_ && thread_ == &this_thread; }

  /// Shares the block with a lease that belongs to the message. Throws what `arena::share` throws.
  sharedmem::claim share(const sharedmem::block_ref& ref) {
    const std::uint32_t arena = index_of(ref.home->where().uuid);
    leases_.emplace_back();  // before the lease: afterwards nothing may fail
    try {
      const sharedmem::claim taken = ref.home->share(ref, true);
      leases_.back() = {taken.nonce, taken.block, taken.lease, arena, forks};
      return taken;
    } catch (...) {
      leases_.pop_back();
      throw;
    }
  }

  /// Whether no handle of the block that begins at `data` was asked for before in this message.
  bool is_first(const void* data) {
    if (4 * (used_ + 1) > 3 * table_.size()) grow();
    block& found = find(data);
    if (found.data != nullptr) return false;
    found.data = data;
    ++used_;
    return true;
  }

  /// The object that `keep` was given for the block; borrowed, null: none. \pre `is_first` was called for it.
  PyObject* keeper(const void* data) noexcept { return find(data).keeper; }
  void keep(const void* data, PyObject* keeper) noexcept { find(data).keeper = Py_NewRef(keeper); }

  /// Ends the complete message, and appends the leases that it took in an arena to `taken`: they are the caller's. Those
  /// of other arenas belong to the process that loads the message.
  void end_into(const uuid& arena, std::vector<sharedmem::claim>& taken) {
    taken.reserve(taken.size() + leases_.size());
    for (const lease& each : leases_)
      if (each.forks_before == forks && arenas_[each.arena] == arena)
        taken.push_back({each.block, 0, each.entry, each.nonce});
    end(true);
  }

  /// Whether a lease that the message has taken is still out: its handle can be loaded.
  bool in_flight() const noexcept {
    for (const lease& each : leases_)
      if (each.forks_before == forks &&
          sharedmem::is_in_flight(arenas_[each.arena], {each.block, 0, each.entry, each.nonce}))
        return true;
    return false;
  }

  /// Ends the message, `complete` or not. Afterwards it takes no leases.
  void end(bool complete) noexcept {
    open_ = false;
    if (!complete)
      for (const lease& each : leases_)
        if (each.forks_before == forks)
          sharedmem::give_back(arenas_[each.arena], {each.block, 0, each.entry, each.nonce});
    leases_.clear();
    for (const block& each : table_) Py_XDECREF(each.keeper);
    table_.clear();
  }

 private:
  struct lease {
    std::uint64_t nonce;
    std::uint32_t block;
    std::uint32_t entry;
    std::uint32_t arena;  // index into `arenas_`
    std::uint32_t forks_before;
  };

  struct block {
    const void* data = nullptr;  // null: the entry is empty
    PyObject* keeper = nullptr;
  };

  std::uint32_t index_of(const uuid& arena) {
    for (std::size_t i = 0; i < arenas_.size(); ++i)
      if (arenas_[i] == arena) return static_cast<std::uint32_t>(i);
    arenas_.push_back(arena);
    return static_cast<std::uint32_t>(arenas_.size() - 1);
  }

  /// The block's entry in the hash table, or the empty one where it belongs. \pre one is empty
  block& find(const void* data) noexcept {
    constexpr std::uint64_t golden = 0x9e3779b97f4a7c15;  // 2^64 over the golden ratio: Fibonacci hashing
    const std::size_t mask = table_.size() - 1;
    std::size_t i = (reinterpret_cast<std::uintptr_t>(data) * golden >> 32) & mask;
    while (table_[i].data != nullptr && table_[i].data != data) i = (i + 1) & mask;
    return table_[i];
  }

  void grow() {
    std::vector<block> old(table_.empty() ? 8 : 2 * table_.size());
    old.swap(table_);
    for (const block& each : old)
      if (each.data != nullptr) find(each.data) = each;
  }

  // How many forks lie between this process and the one that loaded the library: tells a parent from its child
  // without the system call of getpid(2).
  inline static std::uint32_t forks = 0;
  inline static const int counting = at_fork(nullptr, nullptr, [] { ++forks; });
  inline static thread_local char this_thread = 0;  // its address names the thread

  bool open_ = true;
  const char* thread_ = &this_thread;
  std::vector<uuid> arenas_;  // uuids, not pointers: a foreign arena may be left meanwhile
  std::vector<lease> leases_;
  std::vector<block> table_;  // of a power of two entries, at most three in four in use
  std::size_t used_ = 0;
};

}  // namespace sharedmem_pyx
