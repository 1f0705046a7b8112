#pragma once

#include <functional>
#include <string>
#include <thread>

namespace cairn {

// Starts a thread called NAME (15 bytes at most) that blocks the signals which somebody else sends:
// they are for the threads of the program, whose handlers may not expect others. A thread's own
// faults (SIGSEGV and the like) reach it as ever. Throws kNoMemory when the system makes no more
// threads.
std::thread start_thread(std::string name, std::function<void()> work);

}  // namespace cairn
