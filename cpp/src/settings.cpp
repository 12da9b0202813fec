#include "settings.hpp"

#include <algorithm>
#include <charconv>
#include <stdexcept>
#include <string>
#include <string_view>

#include "os/fork_handlers.hpp"

namespace sharedmem {
namespace {

/// Takes the number, 0 or more, with which `text` begins; nothing if there is none. Not by strtod(3) and the
/// like: they read "0.5" as 0 where the program's locale has a decimal comma.
std::optional<double> take_number(std::string_view& text) noexcept {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\n"), text.size()));
  if (text.starts_with('+')) text.remove_prefix(1);
  double number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc{} || !(number >= 0)) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return number;
}

/// Bytes in "8GiB", "512M", "1GB", "1e9", "123456"; nothing if it is none of these.
std::optional<std::uint64_t> parse_size(std::string_view text) noexcept {
  const auto number = take_number(text);
  if (!number) return std::nullopt;
  text.remove_prefix(std::min(text.find_first_not_of(" \t\n"), text.size()));
  double bytes = *number;
  constexpr std::string_view units = "KkMmGgTt";
  if (const auto k = text.empty() ? units.npos : units.find(text.front()); k != units.npos) {
    text.remove_prefix(1);
    const bool decimal =
        text.starts_with('B') || text.starts_with('b');  // 1 GB is 10^9 bytes, 1 G and 1 GiB 2^30
    for (std::size_t i = 0; i <= k / 2; ++i) bytes *= decimal ? 1000 : 1024;
    if (text.starts_with('i') || text.starts_with('I')) text.remove_prefix(1);
  }
  if (text.starts_with('B') || text.starts_with('b')) text.remove_prefix(1);
  if (!text.empty() || bytes >= 9e18) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace

const char* setting(const char* name) noexcept {
  const char* text = secure_environment(name);
  return text == nullptr || *text == '\0' ? nullptr : text;
}

std::optional<std::uint64_t> size_setting(const char* name) {
  const char* text = setting(name);
  if (text == nullptr) return std::nullopt;
  const auto size = parse_size(text);
  if (!size)
    throw std::invalid_argument(
        std::string(name) + " is '" + text +
        "', which is not a size: a number of bytes below 8 EiB, such as 8GiB; the units are KiB, "
        "MiB, GiB, TiB, or K, M, G, T (1024 each), and kB, MB, GB, TB (1000 each)");
  return size;
}

unsigned count_setting(const char* name, unsigned most) {
  const char* text = setting(name);
  if (text == nullptr) return 0;
  std::string_view rest = text;
  const auto number = take_number(rest);
  if (!number || !rest.empty() || !(*number >= 1 && *number <= most) ||
      *number != static_cast<unsigned>(*number))
    throw std::invalid_argument(std::string(name) + " is '" + text +
                                "', which is not a whole number from 1 to " + std::to_string(most));
  return static_cast<unsigned>(*number);
}

double linger_seconds() {
  constexpr double usual = 10, most = 3600;
  const char* text = setting("SHAREDMEM_LINGER");
  if (text == nullptr) return usual;
  std::string_view rest = text;
  const auto seconds = take_number(rest);
  if (!seconds || !rest.empty())
    throw std::invalid_argument(std::string("SHAREDMEM_LINGER is '") + text +
                                "', which is not a number of seconds, 0 or more");
  return std::min(*seconds, most);
}

}  // namespace sharedmem
