#include "settings.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "fork_handlers.hpp"

namespace sharedmem {

double linger_seconds() {
  constexpr double usual = 10, most = 3600;
  const char* text = secure_environment("SHAREDMEM_LINGER");
  if (text == nullptr || *text == '\0') return usual;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (end == text || *end != '\0' || !(seconds >= 0))
    throw std::invalid_argument(std::string("SHAREDMEM_LINGER is '") + text +
                                "', which is no number of seconds, 0 or more");
  return std::min(seconds, most);
}

}  // namespace sharedmem
