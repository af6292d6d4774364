// Numbers that nobody can guess.
#pragma once

#include <cstdint>

namespace tandem {

// From the kernel; where it has none to give, from the time. Unlike std::random_device it does not
// ask the CPU what it is first, which a virtual machine makes slow. From any thread.
uint64_t RandomNumber();

}  // namespace tandem
