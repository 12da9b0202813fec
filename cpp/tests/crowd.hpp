/// \file
/// More processes than an arena has slots.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "arena_tools.hpp"

/// Takes every slot of an arena, by children that wait to be killed.
class crowd {
 public:
  explicit crowd(sharedmem::arena& a) {
    const auto one_more = [&] {
      all_.push_back(fork_from(a, [] {
        sleep_for_ever();
        return 0;
      }));
    };
    while (all_.size() < 240) one_more();  // there are more slots than that; counting takes long
    for (std::size_t before = 0; before != a.participants().size(); one_more())
      before = a.participants().size();
    all_.pop_back();  // this one found no slot
  }
  void kill(std::size_t some) {
    for (std::size_t i = 0; i < some; ++i) all_.pop_back();
  }
  std::size_t size() const { return all_.size(); }

 private:
  std::vector<std::unique_ptr<child>> all_;
};
