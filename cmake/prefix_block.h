// For the rooms above the block layer: what every driver, job and verb stands on.
#pragma once

#include "async/async.h"
#include "block/context.h"
#include "block/driver.h"
#include "prefix.h"
