// src/job: work that takes a while on opened nodes: convert, compare, bench. Each job is a class
// with its options, a progress function and one run() that is awaited; it prints nothing. May
// include src/block and below; opens nothing by itself.
#pragma once

#include "job/bench.h"
#include "job/commit.h"
#include "job/compare.h"
#include "job/convert.h"
#include "job/difference.h"
#include "job/hash.h"
#include "job/history.h"
