#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"
#include "protocol/iscsi/unit.h"

namespace cairn::iscsi {

// What units answer, decoded here (SPC-4, SBC-3): the library trusts the lengths in it. Nothing
// throws; an answer that is too short says nothing.

// INQUIRY: what kind of device it is, and whether the target copies. False when it says nothing.
bool read_inquiry(ByteSpan answer, Unit* unit);
// MODE SENSE (6): whether it can be written.
void read_modes(ByteSpan answer, Unit* unit);
// READ CAPACITY (10) and (16): UINT64_MAX blocks are more than can be counted.
bool read_capacity10(ByteSpan answer, Unit* unit);
bool read_capacity16(ByteSpan answer, Unit* unit);
// The blocks of READ CAPACITY (16).
std::optional<uint64_t> blocks_of(ByteSpan answer);
// The page CODE of vital product data without its header; empty when it is another one.
ByteSpan page_of(ByteSpan answer, uint8_t code);
// Bytes that the whole page has; 0 when it does not say.
size_t page_bytes(ByteSpan answer);
void read_limits(ByteSpan page, Unit* unit);
void read_provisioning_page(ByteSpan page, Unit* unit);
// The name of the unit of a kind that no other unit has; of several that of the highest type.
void read_designators(ByteSpan page, Unit* unit);
// GET LBA STATUS.
std::vector<Provisioning> read_provisioning(ByteSpan answer);

}  // namespace cairn::iscsi
