/// \file
/// Windows: segments are sections of the paging file. The kernel frees a section when its last handle and its last view are
/// closed. Its name, however, disappears with the last handle, even if there are still views. So each process keeps a
/// handle open as long as it has a view.
#include "os/segment.hpp"

#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <utility>

#include "os/identity.hpp"
#include "os/windows/address_space.hpp"
#include "os/windows/system.hpp"
#include "os/windows/user.hpp"

extern "C" NTSTATUS NTAPI NtQuerySection(HANDLE, int, PVOID, SIZE_T, SIZE_T*);

namespace sharedmem::os {
namespace {

/// Ids below this are those under which processes meet (`create_under_key`); all others are random.
constexpr std::int32_t first_drawn = 1 << 24;

constexpr DWORD rights = FILE_MAP_READ | FILE_MAP_WRITE | SECTION_QUERY | READ_CONTROL;

/// The section's name. "Local\\" limits it to the user's session: in another session the same name is another object.
std::string name_text(std::int32_t id, std::uint64_t tag) {
  char text[64];
  if (id < first_drawn)
    std::snprintf(text, sizeof text, "Local\\sharedmem-meeting-%08x", static_cast<unsigned>(id));
  else
    std::snprintf(text, sizeof text, "Local\\sharedmem-%016llx-%08x", static_cast<unsigned long long>(tag),
                  static_cast<unsigned>(id));
  return text;
}

std::int32_t draw() {
  std::uint32_t word = 0;
  random_bytes(&word, sizeof word);
  return static_cast<std::int32_t>(word >> 1 | first_drawn);
}

/// The size of a section in bytes, rounded up to whole pages; 0 if the system does not tell.
std::uint64_t size_of(HANDLE section) noexcept {
  struct {
    void* base;
    ULONG attributes;
    LARGE_INTEGER bytes;
  } basic{};
  constexpr int basic_information = 0;
  if (::NtQuerySection(section, basic_information, &basic, sizeof basic, nullptr) < 0) return 0;
  return static_cast<std::uint64_t>(basic.bytes.QuadPart);
}

/// Creates a section, or opens the one that has this name already.
/// \param made  set to whether it was created.
kernel_handle make(const std::string& name, std::size_t bytes, bool& made) {
  for_this_user owner;
  const auto size = static_cast<unsigned long long>(bytes);
  kernel_handle section{::CreateFileMappingW(INVALID_HANDLE_VALUE, owner.get(), PAGE_READWRITE | SEC_RESERVE,
                                             static_cast<DWORD>(size >> 32), static_cast<DWORD>(size),
                                             wide(name).c_str())};
  const DWORD code = ::GetLastError();
  if (!section) throw system_error_of(code, "CreateFileMapping", name + ", " + bytes_text(bytes));
  made = code != ERROR_ALREADY_EXISTS;
  return section;
}

HANDLE handle_of(std::uint64_t word) noexcept {
  return reinterpret_cast<HANDLE>(static_cast<std::uintptr_t>(word));
}
std::uint64_t word_of(HANDLE handle) noexcept { return reinterpret_cast<std::uintptr_t>(handle); }

/// Whether the first page of a view can be read. The page is committed, since only asking would not suffice: under Wine,
/// VirtualQuery and ReadProcessMemory do not know which pages another process has committed.
bool is_readable(std::byte* at) noexcept {
  if (::VirtualAlloc(at, 1, MEM_COMMIT, PAGE_READONLY) != nullptr) return true;
  std::byte byte;
  SIZE_T done = 0;
  return ::ReadProcessMemory(::GetCurrentProcess(), at, &byte, 1, &done) && done == 1;
}

struct view {
  std::byte* base;
  ~view() { ::UnmapViewOfFile(base); }
};

void require_size(std::size_t bytes) {
  if (bytes == 0 || bytes > SIZE_MAX / 2) throw std::invalid_argument("a segment of " + bytes_text(bytes));
}

}  // namespace

segment::segment(segment&& other) noexcept { *this = std::move(other); }

segment& segment::operator=(segment&& other) noexcept {
  if (this != &other) {
    reset();
    kind_ = std::exchange(other.kind_, backing::none);
    id_ = std::exchange(other.id_, -1);
    base_ = std::exchange(other.base_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    changed_ = std::exchange(other.changed_, 0);
    tag_ = other.tag_;
    tagged_ = other.tagged_;
    made_by_ = other.made_by_;
  }
  return *this;
}

segment::~segment() { reset(); }

void segment::reset() noexcept {
  if (base_ != nullptr) ::UnmapViewOfFile(base_);
  if (changed_ != 0) ::CloseHandle(handle_of(changed_));
  kind_ = backing::none;
  id_ = -1;
  base_ = nullptr;
  bytes_ = 0;
  changed_ = 0;
}

segment segment::create(backing kind, std::size_t bytes, std::uint64_t tag) {
  if (kind != backing::section) throw std::invalid_argument("a segment needs a kind");
  require_size(bytes);
  segment made{kind, bytes, draw(), tag};
  bool is_new = false;
  kernel_handle section = make(made.text(), bytes, is_new);
  if (!is_new) throw error(EEXIST, "CreateFileMapping", made.text());
  made.changed_ = word_of(section.release());
  made.attach();
  return made;
}

segment segment::open(const segment_name& name, std::uint64_t tag) {
  if (name.kind != backing::section) throw std::invalid_argument("a segment needs a kind");
  const std::string text = name_text(name.id, tag);
  kernel_handle section{::OpenFileMappingW(rights, FALSE, wide(text).c_str())};
  if (!section) {
    const DWORD code = ::GetLastError();
    // ERROR_INVALID_HANDLE: an object of another kind has this name.
    if (code == ERROR_FILE_NOT_FOUND || code == ERROR_INVALID_HANDLE) throw stale_handle(text + " has gone");
    throw system_error_of(code, "OpenFileMapping", text);
  }
  if (!is_owned_by_this_user(section.get())) throw error(EPERM, "attach", text + " of another user");
  const std::uint64_t bytes = size_of(section.get());
  if (bytes == 0) throw stale_handle(text + " is not one of this library's");
  segment found{name.kind, static_cast<std::size_t>(bytes), name.id, tag};
  found.changed_ = word_of(section.release());
  return found;
}

bool segment::look(viewer see, void* context) const {
  const view whole{map_view(handle_of(changed_), bytes_, FILE_MAP_READ, text())};
  return is_readable(whole.base) && see(whole.base, bytes_, context);
}

void segment::attach() {
  base_ = map_view(handle_of(changed_), bytes_, FILE_MAP_READ | FILE_MAP_WRITE, text());
}

segment segment::attach_read_only() const {
  HANDLE own = nullptr;
  const HANDLE process = ::GetCurrentProcess();
  if (!::DuplicateHandle(process, handle_of(changed_), process, &own, 0, FALSE, DUPLICATE_SAME_ACCESS))
    throw system_error_of(::GetLastError(), "DuplicateHandle", text());
  segment made{kind_, bytes_, id_, tag_};
  made.changed_ = word_of(own);
  made.base_ = map_view(own, bytes_, FILE_MAP_READ, text());
  return made;
}

meeting segment::create_under_key(std::uint32_t number, std::size_t bytes, std::uint32_t, segment& object) {
  require_size(bytes);
  const auto id = static_cast<std::int32_t>(number & (first_drawn / 2 - 1));
  const std::string text = name_text(id, 0);
  bool is_new = false;
  kernel_handle section;
  try {
    section = make(text, bytes, is_new);
    if (!is_owned_by_this_user(section.get())) return meeting::taken;
  } catch (const error& refused) {  // EACCES: another user's; EBADF: an object of another kind
    const int code = refused.code().value();
    if (code == EACCES || code == EBADF) return meeting::taken;
    throw;
  }
  const std::uint64_t size = size_of(section.get());
  if (size == 0) return meeting::taken;
  object = segment{backing::section, static_cast<std::size_t>(size), id, 0};
  object.changed_ = word_of(section.release());
  return is_new ? meeting::made : meeting::found;
}

void segment::let_key_go(const segment_name&) noexcept {}

std::vector<segment_name> segment::list(std::uint32_t, std::span<const std::uint32_t> numbers) {
  std::vector<segment_name> found;
  for (const std::uint32_t number : numbers) {
    const segment_name name{backing::section, static_cast<std::int32_t>(number & (first_drawn / 2 - 1)), 0};
    const kernel_handle there{::OpenFileMappingW(rights, FALSE, wide(name_text(name.id, 0)).c_str())};
    if (there && is_owned_by_this_user(there.get())) found.push_back(name);
  }
  return found;
}

bool segment::promise(std::size_t offset, std::size_t bytes) noexcept {
  if (bytes == 0) return true;
  return ::VirtualAlloc(base_ + offset, bytes, MEM_COMMIT, PAGE_READWRITE) != nullptr;
}

segment_name segment::name() const noexcept { return {kind_, id_, 0}; }

std::string segment::text() const { return name_text(id_, tag_); }

std::uint64_t segment::resident() const noexcept {
  std::uint64_t promised = 0;
  for (std::size_t at = 0; base_ != nullptr && at < bytes_;) {
    MEMORY_BASIC_INFORMATION there;
    if (::VirtualQuery(base_ + at, &there, sizeof there) != sizeof there) break;
    if (there.State == MEM_COMMIT) promised += there.RegionSize;
    at += there.RegionSize;
  }
  return promised;
}

}  // namespace sharedmem::os

std::size_t sharedmem::sweep_orphans() noexcept { return 0; }
