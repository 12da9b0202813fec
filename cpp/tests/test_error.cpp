#include <doctest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <type_traits>

#include <sharedmem/error.hpp>

using namespace sharedmem;

TEST_CASE("an error names the call, its object, the system's text and the code") {
  const error e{ENOMEM, "shmat", "id 7, 1048576 bytes"};
  CHECK(std::string{e.what()} ==
        std::string{"shmat(id 7, 1048576 bytes): "} + std::strerror(ENOMEM) + " [ENOMEM]");
  CHECK(e.operation() == "shmat");
  CHECK(e.object() == "id 7, 1048576 bytes");
  CHECK(e.code().value() == ENOMEM);
  CHECK(e.code() == std::errc::not_enough_memory);
}

TEST_CASE("a code without a name shows its number; the object may be missing") {
  const error e{EXDEV, "call"};
  CHECK(std::string{e.what()}.starts_with("call(): "));
  CHECK(std::string{e.what()}.ends_with(" [errno " + std::to_string(EXDEV) + "]"));
  CHECK(e.object().empty());
}

TEST_CASE("copies share the text and outlive the original") {
  error copy{EPERM, "first"};
  {
    const error original{EINVAL, "second", "object"};
    copy = original;
  }
  CHECK(copy.operation() == "second");
  CHECK(copy.code().value() == EINVAL);

  no_memory none{"a"};
  {
    const no_memory original{"asked for 5 bytes"};
    none = original;
  }
  CHECK(std::string{none.what()} == "asked for 5 bytes");
}

TEST_CASE("exceptions are caught as their standard kinds, and copy without throwing") {
  CHECK_THROWS_AS(throw error(EIO, "read"), std::system_error);
  CHECK_THROWS_AS(throw no_memory("x"), std::bad_alloc);
  CHECK_THROWS_AS(throw stale_handle("x"), std::runtime_error);
  CHECK_THROWS_AS(throw corrupted("x"), std::runtime_error);
  CHECK(std::is_nothrow_copy_constructible_v<error>);
  CHECK(std::is_nothrow_copy_constructible_v<no_memory>);
  CHECK(std::is_nothrow_copy_constructible_v<stale_handle>);
  CHECK(std::is_nothrow_copy_constructible_v<corrupted>);
}
