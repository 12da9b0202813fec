/// \file
/// Windows: maps regular files as shared memory.
#include "os/files.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "os/windows/system.hpp"

namespace sharedmem::os {
namespace {

constexpr DWORD shared_by_all = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

std::uint64_t joined(DWORD high, DWORD low) noexcept { return std::uint64_t{high} << 32 | low; }

file_facts facts_of(HANDLE file, const std::string& path) {
  BY_HANDLE_FILE_INFORMATION record{};
  if (::GetFileType(file) != FILE_TYPE_DISK)
    throw std::invalid_argument(path + " is a device or a pipe: only regular files can be shared memory");
  if (!::GetFileInformationByHandle(file, &record))
    throw system_error_of(::GetLastError(), "GetFileInformationByHandle", path);
  if ((record.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0) throw error(EISDIR, "map", path);
  file_facts facts;
  facts.device = record.dwVolumeSerialNumber;
  facts.inode = joined(record.nFileIndexHigh, record.nFileIndexLow);
  facts.birth = 0;  // programs may change it; the number of a file on NTFS counts how often it was used again
  facts.bytes = joined(record.nFileSizeHigh, record.nFileSizeLow);
  return facts;
}

/// FILE_FLAG_BACKUP_SEMANTICS allows to open folders, too, so that the caller can tell a folder from a missing file.
kernel_handle open_file(const std::string& path, DWORD access) {
  kernel_handle file{::CreateFileW(wide(path).c_str(), access, shared_by_all, nullptr, OPEN_EXISTING,
                                   FILE_FLAG_BACKUP_SEMANTICS, nullptr)};
  if (!file) throw system_error_of(::GetLastError(), "CreateFile", path);
  return file;
}

file_bytes map_open(HANDLE file, bool writable, const std::string& path) {
  file_bytes made{nullptr, facts_of(file, path)};
  if (made.facts.bytes == 0) return made;
  const std::string what = path + ", " + bytes_text(made.facts.bytes);
  if (made.facts.bytes > SIZE_MAX / 2) throw error(ENOMEM, "MapViewOfFile", what);
  const kernel_handle section{
      ::CreateFileMappingW(file, nullptr, writable ? PAGE_READWRITE : PAGE_READONLY, 0, 0, nullptr)};
  if (!section) throw system_error_of(::GetLastError(), "CreateFileMapping", what);
  // Of the size that is returned: if the file has been cut short since it was looked at, this fails.
  made.data = static_cast<std::byte*>(
      ::MapViewOfFile(section.get(), writable ? FILE_MAP_READ | FILE_MAP_WRITE : FILE_MAP_READ, 0, 0,
                      static_cast<SIZE_T>(made.facts.bytes)));
  if (made.data == nullptr) throw system_error_of(::GetLastError(), "MapViewOfFile", what);
  return made;
}

void write_at_start(HANDLE file, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    DWORD done = 0;
    const auto piece = static_cast<DWORD>(std::min<std::size_t>(bytes.size(), 1U << 30));
    if (!::WriteFile(file, bytes.data(), piece, &done, nullptr))
      throw system_error_of(::GetLastError(), "WriteFile", path);
    bytes = bytes.subspan(done);
  }
}

void set_size(HANDLE file, std::uint64_t bytes, const std::string& path) {
  const std::string what = path + ", " + bytes_text(bytes);
  if (bytes > static_cast<std::uint64_t>(INT64_MAX)) throw error(EFBIG, "SetEndOfFile", what);
  LARGE_INTEGER end{};
  end.QuadPart = static_cast<LONGLONG>(bytes);
  if (!::SetFilePointerEx(file, end, nullptr, FILE_BEGIN) || !::SetEndOfFile(file)) {
    const DWORD code = ::GetLastError();
    if (code == ERROR_INVALID_PARAMETER) throw error(EFBIG, "SetEndOfFile", what);  // no file has such a size
    throw system_error_of(code, "SetEndOfFile", what);
  }
  end.QuadPart = 0;
  if (!::SetFilePointerEx(file, end, nullptr, FILE_BEGIN))
    throw system_error_of(::GetLastError(), "SetFilePointerEx", what);
}

/// Removes a temporary file at the end of the scope, unless it was renamed and `name` was emptied.
struct unfinished_file {
  std::wstring name;
  ~unfinished_file() {
    if (!name.empty()) ::DeleteFileW(name.c_str());
  }
};

}  // namespace

file_facts look_at_file(const std::string& path) {
  return facts_of(open_file(path, FILE_READ_ATTRIBUTES).get(), path);
}

file_bytes map_file(const std::string& path, bool writable) {
  (void)look_at_file(path);  // says EISDIR for a folder; to open one for writing fails with a vaguer error
  return map_open(open_file(path, writable ? GENERIC_READ | GENERIC_WRITE : GENERIC_READ).get(), writable,
                  path);
}

file_bytes create_file(const std::string& path, std::uint64_t bytes, std::span<const std::byte> head) {
  static std::atomic<unsigned> last{0};
  const std::wstring place = wide(path);
  const DWORD there = ::GetFileAttributesW(place.c_str());
  if (there != INVALID_FILE_ATTRIBUTES && (there & FILE_ATTRIBUTE_DIRECTORY) != 0)
    throw error(EISDIR, "create", path);
  // Another machine may be at work in a folder of a network, and has processes of the same number.
  unfinished_file name;
  std::wstring unfinished;
  kernel_handle file;
  do {
    unfinished = place + L".sharedmem-" + std::to_wstring(::GetCurrentProcessId()) + L"-" +
                 std::to_wstring(++last) + L".tmp";
    file = kernel_handle{::CreateFileW(unfinished.c_str(), GENERIC_READ | GENERIC_WRITE | DELETE,
                                       shared_by_all, nullptr, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, nullptr)};
  } while (!file && ::GetLastError() == ERROR_FILE_EXISTS);
  if (!file) throw system_error_of(::GetLastError(), "CreateFile", path);
  name.name = std::move(unfinished);
  set_size(file.get(), bytes, path);
  write_at_start(file.get(), head, path);
  const file_bytes made = map_open(file.get(), true, path);
  if (!::MoveFileExW(name.name.c_str(), place.c_str(), MOVEFILE_REPLACE_EXISTING)) {
    const DWORD code = ::GetLastError();
    unmap_file(made.data, made.facts.bytes);
    const char* const why =
        errno_of(code) == EACCES
            ? ": Windows does not replace a file that is mapped by a process, or read-only"
            : "";
    throw system_error_of(code, "MoveFileEx", path + why);
  }
  name.name.clear();
  return made;
}

void unmap_file(std::byte* data, std::uint64_t) noexcept {
  if (data != nullptr) ::UnmapViewOfFile(data);
}

// FlushViewOfFile only hands the pages to the system and the disk; FlushFileBuffers waits until they are stored. The latter
// needs a handle with which the file can be written. That is not kept from the start, since it would keep other programs from
// opening the file, unless they allow that others write to it meanwhile.
void flush_file(std::byte* data, std::uint64_t bytes, const std::string& path, const file_facts& facts,
                bool writable) {
  if (!::FlushViewOfFile(data, static_cast<SIZE_T>(bytes)))
    throw system_error_of(::GetLastError(), "FlushViewOfFile", path + ", " + bytes_text(bytes));
  if (!writable) return;  // this process has stored nothing
  const kernel_handle file = open_file(path, GENERIC_WRITE);
  const file_facts now = facts_of(file.get(), path);
  if (now.device != facts.device || now.inode != facts.inode)
    throw stale_handle(
        path +
        " is a different file now: the file that contains the array was renamed, and can only be "
        "flushed under the name by which it was opened");
  if (!::FlushFileBuffers(file.get())) throw system_error_of(::GetLastError(), "FlushFileBuffers", path);
}

}  // namespace sharedmem::os
