// src/daemon/schema: the commands, events and types of QMP, as one table: it says which arguments a
// command takes, and is what query-qmp-schema gives. May include src/base.
#pragma once

namespace cairn::daemon {

// One row for each, which may go on in lines that begin with blanks:
//
//   command NAME ARGUMENTS RESULT {feature,…}
//   event NAME DATA {feature,…}
//   object NAME{feature,…} MEMBER:TYPE{feature,…} OPTIONAL?:TYPE … by TAG CASE=TYPE …
//   enum NAME VALUE{feature,…} …
//   alternate NAME TYPE …
//
// A type is the name of a row, [TYPE] for an array, or one of str, int, uint16, uint32, number,
// bool, null and any; introspection shows all integers as int. The members that a CASE of a union
// adds are those of the object TYPE.
extern const char* const kCommandRows;
extern const char* const kTypeRows;
extern const char* const kMoreTypeRows;

}  // namespace cairn::daemon
