#include "export/nbd/memory.h"

#include <algorithm>

namespace cairn::nbd::server {

bool ServerMemory::take_now(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (!line_.empty() || free_ < bytes) return false;
  free_ -= bytes;
  return true;
}

uint64_t ServerMemory::queue() {
  std::lock_guard lock(mutex_);
  line_.push_back(next_ticket_);
  return next_ticket_++;
}

bool ServerMemory::take(uint64_t ticket, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (line_.front() != ticket || free_ < bytes) return false;
  line_.pop_front();
  free_ -= bytes;
  return true;
}

void ServerMemory::leave(uint64_t ticket) {
  std::lock_guard lock(mutex_);
  std::erase(line_, ticket);
}

void ServerMemory::release(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  free_ += bytes;
}

bool ServerMemory::keep(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (spare_ < bytes) return false;
  spare_ -= bytes;
  return true;
}

void ServerMemory::let_go(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  spare_ += bytes;
}

}  // namespace cairn::nbd::server
