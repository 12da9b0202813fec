/// What the conformance tests cannot ask of files in words that every system understands.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <vector>

#include <sharedmem/error.hpp>

#include "os/files.hpp"
#include "os/os.hpp"
#include "os/windows/system.hpp"

using namespace sharedmem;

namespace {

/// A path that no other process uses.
std::string own_path() {
  return std::string(std::getenv("TEMP")) + "\\sharedmem-test-" + std::to_string(os::pid());
}

}  // namespace

TEST_CASE("a file can be opened while another program moves or deletes it") {
  const std::string path = own_path();
  const std::byte head[] = {std::byte{1}};
  os::file_bytes file = os::create_file(path, 1000, head);
  {
    const os::kernel_handle mover{::CreateFileA(path.c_str(), DELETE | GENERIC_READ | GENERIC_WRITE,
                                                FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                                nullptr, OPEN_EXISTING, 0, nullptr)};
    REQUIRE(mover);
    os::file_bytes again = os::map_file(path, true);
    CHECK(again.data[0] == std::byte{1});
    os::flush_file(again.data, 1000, path, again.facts, true);
    os::unmap_file(again.data, 1000);
  }
  // What is flushed must be the file that was mapped.
  const std::string moved = path + "-moved";
  REQUIRE(::MoveFileA(path.c_str(), moved.c_str()));
  os::file_bytes other = os::create_file(path, 1000, head);
  CHECK_THROWS_AS(os::flush_file(file.data, 1000, path, file.facts, true), stale_handle);
  CHECK_NOTHROW(os::flush_file(file.data, 1000, moved, file.facts, true));
  os::unmap_file(file.data, 1000);
  os::unmap_file(other.data, 1000);
  CHECK(::DeleteFileA(path.c_str()));
  CHECK(::DeleteFileA(moved.c_str()));
}

TEST_CASE("a file is made beside one that another machine is just making") {
  const std::string path = own_path();
  std::vector<std::string> taken;  // the next names of unfinished files
  for (int number = 1; number < 50; ++number) {
    taken.push_back(path + ".sharedmem-" + std::to_string(os::pid()) + "-" + std::to_string(number) + ".tmp");
    const os::kernel_handle made{
        ::CreateFileA(taken.back().c_str(), GENERIC_WRITE, 0, nullptr, CREATE_NEW, 0, nullptr)};
    REQUIRE(made);
  }
  const os::file_bytes file = os::create_file(path, 1000, {});
  CHECK(file.facts.bytes == 1000);
  os::unmap_file(file.data, 1000);
  for (const std::string& name : taken) CHECK(::DeleteFileA(name.c_str()));
  CHECK(::DeleteFileA(path.c_str()));
}

TEST_CASE("errors of files are those that other systems report") {
  for (const DWORD code : {ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND, ERROR_INVALID_DRIVE, ERROR_BAD_NETPATH,
                           ERROR_BAD_NET_NAME})
    CHECK(os::errno_of(code) == ENOENT);
  for (const DWORD code : {ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION, ERROR_DELETE_PENDING})
    CHECK(os::errno_of(code) == EACCES);
  CHECK(os::errno_of(ERROR_DISK_FULL) == ENOSPC);
  CHECK(os::errno_of(ERROR_FILENAME_EXCED_RANGE) == ENAMETOOLONG);
  CHECK(os::errno_of(ERROR_COMMITMENT_LIMIT) == ENOMEM);
}
