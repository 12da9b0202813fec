#include "os/identity.hpp"

#include <sys/auxv.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

#include "os/linux/memfd.hpp"
#include "os/linux/proc.hpp"

namespace sharedmem {
namespace {

constexpr std::uint64_t flag_exiting = 0x4;  // PF_EXITING of the kernel's sched.h

/// What /proc/PID/stat says; proc_pid_stat(5) numbers the fields from 1.
struct process_record {
  char state = '?';
  std::uint64_t flags = 0;    // field 9
  std::uint64_t threads = 0;  // field 20
  std::uint64_t start = 0;    // field 22
};

std::string_view next_word(std::string_view& text) noexcept {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return text = {};
  const std::size_t end = text.find_first_of(" \t\n", begin);
  const std::string_view word = text.substr(begin, end - begin);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end);
  return word;
}

std::uint64_t number(std::string_view word, int base = 10) noexcept {
  std::uint64_t value = 0;
  std::from_chars(word.data(), word.data() + word.size(), value, base);
  return value;
}

std::optional<process_record> read_record(const char* path) noexcept {
  char room[2048];
  std::string_view text = os::read_file(path, room, sizeof room);
  // Field 2 is the program's name in parentheses; it may hold blanks and parentheses.
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos) return {};
  text.remove_prefix(name_end + 1);
  process_record record;
  for (int field = 3; field <= 22; ++field) {
    const std::string_view word = next_word(text);
    if (word.empty()) return {};
    switch (field) {
      case 3: record.state = word.front(); break;
      case 9: record.flags = number(word); break;
      case 20: record.threads = number(word); break;
      case 22: record.start = number(word) & start_mask; break;
      default: break;
    }
  }
  return record;
}

// Whether /proc names processes as this one does: not so after unshare(CLONE_NEWPID) without a new
// mount, where it shows strangers under the pids that we mean.
bool proc_is_ours() noexcept {
  os::lines status{"/proc/self/status"};
  std::string_view line;
  while (status.next(line)) {
    if (!line.starts_with("NSpid:")) continue;
    line.remove_prefix(6);
    // One number for each namespace from that of the mount inwards.
    const bool own = number(next_word(line)) == os::pid();
    return own && next_word(line).empty();
  }
  char room[32];  // a kernel without pid namespaces
  return number(os::read_link("/proc/self", room, sizeof room)) == os::pid();
}

/// A namespace of this process, by the inode number of its file; 0: unknown. `keeps`: whether the system is known to
/// give the same number at each look, so that one look is enough.
std::uint64_t namespace_inode(const char* path, std::atomic<bool>& keeps) noexcept {
  if (keeps.load(std::memory_order_relaxed)) return os::inode_of(path);
  const std::uint64_t inode = os::steady(os::inode_of, path);
  if (inode != 0) keeps.store(true, std::memory_order_relaxed);
  return inode;
}

std::uint64_t mix(std::uint64_t hash, std::string_view bytes) noexcept {
  for (const char byte : bytes) {  // FNV-1a
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3U;
  }
  return hash;
}

std::uint64_t compute_host_id() noexcept {
  char room[512];
  std::string_view boot = os::read_file("/proc/sys/kernel/random/boot_id", room, sizeof room);
  if (boot.empty()) boot = os::machine_name(room, sizeof room);
  std::uint64_t hash = mix(0xcbf29ce484222325U, boot);
  const std::uint64_t ipc = os::steady(os::inode_of, "/proc/self/ns/ipc");
  for (int shift = 0; shift < 64; shift += 8) {
    const char byte = static_cast<char>(ipc >> shift);
    hash = mix(hash, {&byte, 1});
  }
  return hash == 0 ? 1 : hash;
}

}  // namespace

process_id this_process() noexcept {
  const auto record = read_record("/proc/self/stat");
  return {.pid = os::pid(), .start = record ? record->start : 0};
}

// The C library makes secrets of these 128 bits (getauxval(3)), which 64 of a hash do not tell.
std::uint64_t this_program() noexcept {
  std::uint64_t random[2] = {};
  const auto* const drawn = reinterpret_cast<const void*>(::getauxval(AT_RANDOM));
  if (drawn == nullptr) return 0;
  std::memcpy(random, drawn, sizeof random);
  std::uint64_t sum = random[0];
  for (int round = 0; round < 4; ++round) {
    sum = (sum ^ sum >> 31) * 0xbf58476d1ce4e5b9U + random[1];
  }
  return sum == 0 ? 1 : sum;
}

std::uint32_t effective_user() noexcept { return ::geteuid(); }

process_namespaces this_namespaces() noexcept {
  static std::atomic<bool> pids_keep{false}, times_keep{false};
  return {.pid = static_cast<std::uint32_t>(namespace_inode("/proc/self/ns/pid", pids_keep)),
          .time = static_cast<std::uint32_t>(namespace_inode("/proc/self/ns/time", times_keep))};
}

liveness look_at(const process_id& who) noexcept {
  if (os::probe(who.pid) == ESRCH) return liveness::dead;
  if (const auto record = read_record(os::proc_path(who.pid, "stat").text)) {
    // A first thread that has ended shows as a zombie while others run; the count includes it.
    const bool zombie = record->state == 'Z' || record->state == 'X' || record->state == 'x';
    const bool ended = zombie && record->threads <= 1;
    const bool another = who.start != 0 && record->start != who.start;
    if ((ended || another) && proc_is_ours()) return liveness::dead;
    if (!ended && !another && who.start != 0) return liveness::alive;
  }
  // Hidden, or not trustworthy; or the process has ended since.
  return os::probe(who.pid) == ESRCH ? liveness::dead : liveness::unknown;
}

bool is_exiting(std::uint32_t pid) noexcept {
  const auto record = read_record(os::proc_path(pid, "stat").text);
  return !record || (record->flags & flag_exiting) != 0 || !proc_is_ours();
}

bool maps_segment(std::uint32_t pid, const segment_name& name, bool fallback) noexcept {
  std::uint64_t inode = 0;
  std::string_view prefix;
  if (name.kind == backing::sysv && name.id >= 0) {
    inode = static_cast<std::uint64_t>(name.id);
    prefix = "/SYSV";
  } else if (name.kind == backing::memfd && name.pid > 0 && name.id >= 0) {
    inode = os::memfd_inode(name.pid, name.id);
    prefix = "/memfd:sharedmem:";
    if (inode == 0) return fallback;
  } else {
    return false;
  }
  if (!proc_is_ours()) return fallback;
  os::lines maps{os::proc_path(pid, "maps").text};
  std::string_view line;
  while (maps.next(line)) {  // addresses rights offset device inode path
    for (int field = 0; field < 4; ++field) next_word(line);
    if (number(next_word(line)) == inode && next_word(line).starts_with(prefix)) return true;
  }
  return !maps.whole() && fallback;
}

std::uint64_t host_id() noexcept {
  static std::atomic<std::uint64_t> known{0};
  std::uint64_t id = known.load(std::memory_order_relaxed);
  if (id == 0) {  // several threads compute the same
    id = compute_host_id();
    known.store(id, std::memory_order_relaxed);
  }
  return id;
}

}  // namespace sharedmem
