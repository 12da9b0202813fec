// Any text: `parse_locator` either refuses it or returns the locator it was made from.
#include <cstdint>
#include <cstdlib>
#include <string>

#include <sharedmem/handle.hpp>

#include "wire.hpp"

namespace {

void check(const std::string& text) {
  const auto where = sharedmem::parse_locator(text);
  if (!where) return;
  const auto again = sharedmem::parse_locator(to_text(*where));
  if (!again || again->segment != where->segment || again->bytes != where->bytes ||
      again->uuid != where->uuid || again->host != where->host)
    std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  check(text);

  // The same text with the right checksum: nothing else gets past it by chance.
  text = "sharedmem-" + std::to_string(sharedmem::handle_version) + ":" + text + ":";
  std::uint32_t sum = sharedmem::wire::checksum(reinterpret_cast<const std::byte*>(text.data()), text.size());
  for (int digit = 0; digit < 8; ++digit, sum <<= 4) text += "0123456789abcdef"[sum >> 28];
  check(text);
  return 0;
}
