/// \file
/// A queue of messages in shared memory that a killed process cannot break.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/export.hpp>
#include <sharedmem/handle.hpp>
#include <sharedmem/robust_mutex.hpp>

namespace sharedmem {

struct queue_bell;
struct queue_report;

/// A message to put. Owns nothing.
struct queue_message {
  /// Leases that the message needs, of blocks of the queue's arena, all in use: the queue keeps them from then on.
  std::span<const claim> claims;
  std::span<const std::byte> bytes;  ///< empty if `in_block`
  bool in_block = false;             ///< the bytes are the first `length` of the block of the first claim
  std::uint64_t length = 0;          ///< of the message, wherever it is
  std::uint64_t checksum = 0;        ///< `queue_checksum` of its bytes
};

/// A message that was taken, as offsets into the vectors of `queue_taken`.
struct queue_entry {
  std::uint64_t number = 0;  ///< of the message, from 0, in the order of the queue
  std::uint64_t length = 0;
  std::uint64_t checksum = 0;
  std::size_t bytes_at = 0;
  std::size_t claims_at = 0;
  std::size_t claims = 0;
  bool in_block = false;
};

/// Messages that were taken. This process is responsible for their leases.
struct queue_taken {
  std::vector<queue_entry> entries;
  std::vector<std::byte> bytes;
  std::vector<claim> claims;
};

/// Checksum of a message, against stray writes: 64 bits that differ if any byte does, except in one case of 2^64.
[[nodiscard]] SHAREDMEM_API std::uint64_t queue_checksum(std::span<const std::byte> bytes) noexcept;

/// A queue of messages, first in, first out, in a block of an arena. Messages lie in a ring, which is a block of its own
/// and is replaced by a larger one when it is full; long ones in blocks of their own.
///
/// The state of the queue is one record, of which there are two copies: an operation writes the copy that is not valid
/// and makes it valid by a single store, its commit. A process that is killed has committed or has not, and the kernel
/// passes its lock on. The leases and blocks that it was handling are noted beside, and the next owner of the lock
/// gives them back or completes the operation (doc/model/queue.pml):
///
/// | killed within    | before the commit                              | after it                                      |
/// | ---------------- | ---------------------------------------------- | --------------------------------------------- |
/// | `try_put`        | the message is lost, its leases are given back | the message is there                          |
/// | `try_get`        | the message is there                           | it is lost, leases still kept are given back  |
/// | `set_ring`       | the old ring stays, the new one is freed       | the new ring is there, the old one is freed   |
///
/// The leases of messages and of the ring belong to the queue's block (`arena::keep_in`), not to a process. When it is
/// freed they are given back.
///
/// Ownership: the object holds references to the queue's block and its ring, and drops them at its end.
/// Threads: members may be called by several threads, but not while another destroys the object. No member waits for
///   another process, except `wait_for_lock` and the `wait_*`.
/// Processes: a forked child may use its copy. All processes must be of one pid namespace.
class SHAREDMEM_API queue {
 public:
  static constexpr std::size_t block_bytes = 1024;
  /// Messages of more bytes are put `in_block`.
  static constexpr std::size_t most_inline = 4096;

  enum class outcome : std::uint8_t {
    done,
    busy,     ///< another thread or process has the lock: call `wait_for_lock`, then try again
    nothing,  ///< there is no message, the queue is full, or there are unfinished tasks
    no_ring   ///< the ring is full: call `set_ring`, then try again
  };

  struct counts {
    std::uint64_t waiting = 0;     ///< messages in the queue
    std::uint64_t unfinished = 0;  ///< messages put, minus calls of `task_done`
    std::uint64_t bytes = 0;       ///< of the messages in the queue, without what their leases keep
    std::uint64_t ring_bytes = 0;  ///< of the ring
  };

  /// What a sleeping process waits for.
  enum class wanted : std::uint8_t { message = 1, room, tasks };
  struct sleeper {
    std::uint32_t pid = 0;
    wanted what = wanted::message;
  };

  queue() noexcept = default;
  queue(const queue&) = delete;
  queue& operator=(const queue&) = delete;
  ~queue() { close(); }

  /// Makes a queue.
  /// \param block  where, of `block_bytes` bytes at least; takes the reference over, also if it throws.
  /// \param most   the most messages that it contains; 0: no bound.
  /// \throws no_memory  and what robust_mutex::create throws.
  void create(allocation& block, std::uint64_t most);
  /// Opens the queue that lies in `block`; takes the reference over, also if it throws.
  /// \throws std::invalid_argument  there is none, or what robust_mutex::open throws.
  void open(allocation& block);
  /// Drops what the object holds. The last one of all processes frees the queue with everything in it.
  void close() noexcept;

  arena* home() const noexcept { return block_.ref.home; }  ///< the arena that it lies in; null: not open
  const allocation& block() const noexcept { return block_; }
  std::uint64_t most() const noexcept;  ///< the bound; 0: none

  // Each of these acquires the lock if it is free, and repairs what a dead owner left.
  // \throws corrupted, and what arena::acquire throws.

  /// Puts messages, as many as there is room for; each is committed by itself. `put`: how many were.
  /// `done`: all; `nothing` and `no_ring`: why the next one was not. `seen` is for `wait_for_room`.
  [[nodiscard]] outcome try_put(std::span<const queue_message> messages, std::size_t& put,
                                std::uint32_t& seen);
  /// Takes at most `most` messages, and at most some 16 MiB; each is committed by itself. `seen` is for `wait_for_message`.
  [[nodiscard]] outcome try_get(std::size_t most, queue_taken& taken, std::uint32_t& seen);
  /// Replaces the ring by one that has room for `bytes` more and for twice what is in it, or for what is in it alone if
  /// `bytes` is 0. \throws no_memory
  [[nodiscard]] outcome set_ring(std::size_t bytes);
  /// Whether the ring takes much more memory than its messages need.
  bool ring_is_large() const noexcept { return large_; }
  [[nodiscard]] outcome count(counts& found);
  /// The same without the lock, for reports. False: it changed during each of many attempts to read it, or is invalid.
  [[nodiscard]] bool look(counts& found) const noexcept;
  /// Threads that sleep in one of the `wait_*`, each of a process that is alive; at most `most_listed` of them.
  /// Acquires no lock. A pid that was given to another process after its owner was killed in its sleep is listed, too.
  [[nodiscard]] std::vector<sleeper> sleepers() const;
  static constexpr std::size_t most_listed = 32;
  /// Finishes one task. `nothing`: there is no unfinished one.
  [[nodiscard]] outcome task_done();
  /// `done`: no unfinished task; `nothing`: there are some. `seen` is for `wait_for_tasks`.
  [[nodiscard]] outcome try_join(std::uint32_t& seen);

  // Waiting: for at most `limit`, or until a signal handler ran, or spuriously; then the caller tries again. A process that
  // should wake us may be killed before it does: so no wait is longer than `longest_wait`.
  // Before they sleep they take the lock, and throw what it throws.

  static constexpr std::chrono::milliseconds longest_wait{250};
  void wait_for_lock(std::chrono::nanoseconds limit);
  void wait_for_message(std::uint32_t seen, std::chrono::nanoseconds limit);
  void wait_for_room(std::uint32_t seen, std::chrono::nanoseconds limit);
  void wait_for_tasks(std::uint32_t seen, std::chrono::nanoseconds limit);

  /// Bytes that a message takes in the ring.
  static std::size_t bytes_in_ring(const queue_message& m) noexcept;

  // Of its block, for the library's own sources.
  struct SHAREDMEM_HIDDEN layout;
  struct SHAREDMEM_HIDDEN state;

 private:
  struct record;
  class guard;

  void repair();
  std::byte* ring(const claim& where, std::uint64_t bytes);
  const record& read(const state& s, std::uint64_t at, std::uint64_t end);
  template <class F>
  void each_claim(const state& s, std::uint64_t from, std::uint64_t to, F&& f);
  bool put_one(const queue_message& m, state& s, std::byte* start) noexcept;
  void get_one(queue_taken& out);
  void wait_on_bell(queue_bell& b, std::uint32_t seen, std::chrono::nanoseconds limit, wanted what);
  std::uint64_t position(const state& s, std::uint64_t bytes, bool& fits) const noexcept;

  layout* at_ = nullptr;
  robust_mutex mutex_;
  allocation block_;
  claim self_;
  allocation ring_block_;
  claim ring_claim_;
  bool large_ = false;
  // How this object waits; a guess, which threads may overwrite for each other.
  std::atomic<std::uint8_t> looks_{0};        // long looks that are worth while
  std::atomic<std::uint8_t> short_waits_{0};  // since the last one
};

/// A queue as seen from its arena, without acquiring a lock.
struct queue_report {
  arena* home = nullptr;      ///< null: read from outside
  std::uint32_t block = 0;    ///< that it lies in
  /// False: it lies in a segment that cannot be read here; only `holders` and `kept_bytes` are known.
  bool readable = false;
  queue::counts now;          ///< of one moment
  std::uint64_t kept_bytes =
      0;  ///< of the blocks that its messages keep: arrays, and messages put `in_block`
  std::uint64_t most = 0;        ///< as `queue::most`
  std::uint64_t age_ns = 0;      ///< since it was made; 0: unknown
  std::uint32_t maker = 0;       ///< pid of the process that made it
  std::vector<std::uint32_t> holders;     ///< pids of the processes that have it
  std::vector<queue::sleeper> sleepers;   ///< as `queue::sleepers`
};

/// The queues in an arena of this process, oldest first.
/// \throws no_memory  and what arena::acquire throws in a process that was forked without handlers.
[[nodiscard]] SHAREDMEM_API std::vector<queue_report> queues_in(arena& a);
/// Those in all arenas that this process has attached. An arena may go meanwhile: its address tells it from others only.
[[nodiscard]] SHAREDMEM_API std::vector<queue_report> all_queues();

}  // namespace sharedmem
