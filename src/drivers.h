#pragma once

namespace cairn {

class Registry;

// The driver table: adds every driver of this program to REGISTRY.
void register_drivers(Registry& registry);

}  // namespace cairn
