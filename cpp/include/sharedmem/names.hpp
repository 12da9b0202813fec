#pragma once

/// \file
/// Names of blocks, for processes of one user that know nothing of each other.
///
/// Named blocks lie in one arena for each user, IPC namespace and value of SHAREDMEM_NAMESPACE, which is found through
/// the kernel's list of System V segments, or made. A name is weak: it lives as long as its block does, and neither
/// keeps the other. Of all processes and threads one at most builds what a name will stand for; that ends by
/// `bind_name`, `fail_name`, `give_up_name`, or with the proven death of the process.
///
/// What throws, throws, besides what is said, `sharedmem::error` (ENOSYS, EPERM: no System V memory here; ENOMEM, ...),
/// `no_memory` (the arena has too many processes) and `corrupted` (a stray write hit it).
/// Threads: any function, at any time. Processes: a forked child may do all but end what its parent builds.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sharedmem/arena.hpp>
#include <sharedmem/export.hpp>

namespace sharedmem {

inline constexpr std::size_t max_name_bytes = 255;
inline constexpr std::size_t max_description_bytes =
    1744;  ///< of a bound name; longer texts of failures are cut

enum class name_status : std::uint8_t {
  none,
  building,  ///< somebody makes what it will stand for
  ready,     ///< it stands for a block
  failed,    ///< whoever built has failed, and those who waited for it are to know
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
  allocation block;        ///< ready: held from now on, and the caller's to release
  std::string text;        ///< ready: the description; failed: why
  std::uint32_t pid = 0;   ///< who builds, or built, in its pid namespace
  std::uint64_t age_ns = 0;  ///< since it began to build, or ended; 0: not known
};

/// What a name stands for now. Makes no arena. \pre  `name` has 1 to max_name_bytes bytes.
SHAREDMEM_API name_found find_name(std::string_view name);

/// Claims a name for which `find_name` found nothing: true, and this thread builds. False: somebody was faster, look
/// again. \throws no_memory  all names are in use.
SHAREDMEM_API bool claim_name(std::string_view name, name_ticket& mine);
/// Ends the building: the name stands for the block of `ref`, which lies in `name_arena()` and is held.
/// \pre  `description` has at most max_description_bytes bytes.
/// \throws std::logic_error  the caller is a forked child of who builds.
SHAREDMEM_API void bind_name(const name_ticket& mine, const block_ref& ref, std::string_view description);
/// Ends the building: those who wait get `text`, cut to max_description_bytes. No effect in a forked child.
SHAREDMEM_API void fail_name(const name_ticket& mine, std::string_view text) noexcept;
/// Ends the building: somebody who waits builds, or nobody. No effect in a forked child.
SHAREDMEM_API void give_up_name(const name_ticket& mine) noexcept;

/// The name, ready or failed, stands for nothing any more. False: something else happened to it first.
SHAREDMEM_API bool vacate_name(const name_ticket& at) noexcept;

/// Sleeps while the name is being built, a tenth of a second and `ns` nanoseconds at most, then looks whether who builds
/// is alive, and takes back what the dead held. `round`: how often the caller has called this.
/// \return  whether something happened to the name.
SHAREDMEM_API bool wait_for_name(const name_ticket& at, unsigned round, std::uint64_t ns = 100000000);
/// Sleeps until some name is bound, or given up; a tenth of a second and `ns` nanoseconds at most.
SHAREDMEM_API void wait_for_names(std::uint64_t ns);

/// The arena that blocks must lie in to be named, by the present value of SHAREDMEM_NAMESPACE. Made if there is none.
/// It stays attached until a function of this header is called, by any thread, with another value, and then as long as
/// anything is held in it: a block, a building, an `attached_arenas` of home.hpp.
SHAREDMEM_API arena& name_arena();
/// The arena in which a building was claimed. It stays attached until the building has ended. nullptr in a forked child
/// of who builds.
SHAREDMEM_API arena* name_arena(const name_ticket& mine) noexcept;

/// While one lives, this thread's new blocks lie in an arena, its `allocate` and `allocate_cached` included.
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
/// The same for who cannot have an object on the stack: returns what was set before, which is to be set again.
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
SHAREDMEM_API std::vector<name_report> all_names();

}  // namespace sharedmem
