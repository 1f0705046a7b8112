// src/operation: what the verbs do, without words: options in, result out. An operation takes a
// Caller, which has the Context, a source of cancellation, and functions for progress and warnings.
// Nothing here prints, parses a command line or reads the environment; how something is said to
// people and programs is the business of src/cli. May include src/export, src/job and the rooms
// below them.
#pragma once

#include "operation/caller.h"
#include "operation/nodes.h"
