#pragma once

/// \file
/// Names of blocks, for unrelated processes of one user.
///
/// Named blocks lie in one arena for each user, IPC namespace and value of SHAREDMEM_NAMESPACE. It is found through
/// the kernel's list of System V segments, or made. A name is weak: it exists as long as its block, and neither
/// keeps the other. Of all processes and threads, at most one builds the block of a name; the building ends by
/// `bind_name`, `fail_name`, `give_up_name`, or with the proven death of the process.
///
/// Functions that throw may throw, in addition to what they say, `sharedmem::error` (ENOSYS, EPERM: System V memory is
/// not available; ENOMEM, ...), `no_memory` (the arena has too many processes) and `corrupted` (by a stray write).
/// Threads: any function, at any time. Processes: a forked child may call all, but cannot end its parent's building.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/export.hpp>

namespace sharedmem {

/// The names that one value of SHAREDMEM_NAMESPACE selects. What takes several calls reads it once, with `now()`, and
/// passes it to each, so that a change of the environment in between does not divide it between two sets of names.
struct name_space {
  std::uint64_t hash = 0;  ///< of the value; 0: the variable is not set, or empty

  /// Those of the present value. Reads the environment, which no thread may change meanwhile.
  SHAREDMEM_API static name_space now() noexcept;
};

inline constexpr std::size_t max_name_bytes = 255;
inline constexpr std::size_t max_description_bytes =
    1744;  ///< of a bound name; longer texts of failures are truncated

enum class name_status : std::uint8_t {
  none,
  building,  ///< a process is making the block to which it will refer
  ready,     ///< it refers to a block
  failed,    ///< the building has failed, and the text is there for those that waited
};

/// One state of one use of a name. A plain value; equal if nothing happened to the name in between.
struct name_ticket {
  std::array<std::uint64_t, 2> host{};  ///< uuid of the arena of names
  std::uint32_t entry = 0;
  std::uint64_t word = 0;

  /// The same for the use of a name, whatever its state.
  std::uint64_t use() const noexcept { return word >> 17; }
  friend bool operator==(const name_ticket&, const name_ticket&) = default;
};

struct name_found {
  name_status what = name_status::none;
  name_ticket at;
  allocation block;        ///< ready: a reference that the caller has to release
  std::string text;        ///< ready: the description; failed: why
  std::uint32_t pid = 0;   ///< of the process that builds, or built, in its pid namespace
  std::uint64_t age_ns = 0;  ///< since it began to build, or ended; 0: unknown
};

/// What a name refers to now. Makes no arena. \pre  `name` has 1 to max_name_bytes bytes.
SHAREDMEM_API name_found find_name(std::string_view name, name_space among = name_space::now());

/// Claims a name for which `find_name` found nothing: true, and this thread builds. False: another one was faster; call
/// `find_name` again. \throws no_memory  all names are in use.
SHAREDMEM_API bool claim_name(std::string_view name, name_ticket& mine, name_space among = name_space::now());
/// Ends the building: the name refers to the block of `ref`, which lies in `name_arena()` and is held.
/// \pre  `description` has at most max_description_bytes bytes.
/// \throws std::logic_error  the caller is a forked child of the building process.
SHAREDMEM_API void bind_name(const name_ticket& mine, const block_ref& ref, std::string_view description);
/// Ends the building: those that wait get `text`, truncated to max_description_bytes. No effect in a forked child.
SHAREDMEM_API void fail_name(const name_ticket& mine, std::string_view text) noexcept;
/// Ends the building: a waiting process, if any, builds next. No effect in a forked child.
SHAREDMEM_API void give_up_name(const name_ticket& mine) noexcept;

/// Removes the name, which is ready or failed. False: something else happened to it first.
SHAREDMEM_API bool vacate_name(const name_ticket& at) noexcept;

/// Sleeps while the name is being built, for a tenth of a second and `ns` nanoseconds at most; then checks whether the
/// building process is alive, and frees what the dead held. `round`: how often the caller has called this.
/// \return  whether the state of the name has changed.
SHAREDMEM_API bool wait_for_name(const name_ticket& at, unsigned round, std::uint64_t ns = 100000000);
/// Sleeps until some name is bound, or given up; a tenth of a second and `ns` nanoseconds at most.
SHAREDMEM_API void wait_for_names(std::uint64_t ns, name_space among = name_space::now());

/// The arena in which blocks must lie to be named. Made if there is none.
/// It stays attached until any thread calls a function of this header for another `name_space`, and after that as long as
/// this process holds anything in it: a block, a building, an `attached_arenas` of home.hpp.
SHAREDMEM_API arena& name_arena(name_space among = name_space::now());
/// The arena in which a building was claimed. It stays attached until the building has ended. nullptr in a child
/// that was forked by the builder.
SHAREDMEM_API arena* name_arena(const name_ticket& mine) noexcept;

/// While such an object lives, this thread's new blocks lie in an arena, also those of its `allocate_cached`.
/// Threads: of one thread. Processes: a forked child's blocks lie in its home arena, also while the copy lives.
class SHAREDMEM_API placing {
 public:
  explicit placing(arena* there) noexcept;
  ~placing();
  placing(const placing&) = delete;
  placing& operator=(const placing&) = delete;

 private:
  arena* before_;
};
/// The same for callers without such an object on the stack: returns the previous setting, to be restored later.
SHAREDMEM_API arena* place_in(arena* there) noexcept;

/// A name, for reports.
struct name_report {
  std::string name;
  name_status what = name_status::none;
  std::string text;                   ///< as in `name_found`
  std::uint32_t pid = 0;              ///< as in `name_found`
  std::uint64_t age_ns = 0;           ///< as in `name_found`
  std::vector<std::uint32_t> holders; ///< pids of the processes that have the block
  bool holders_known = false;         ///< whether these could be read
};

/// All names; each is right by itself. None if there is no arena of names: makes none.
SHAREDMEM_API std::vector<name_report> all_names(name_space among = name_space::now());

}  // namespace sharedmem
