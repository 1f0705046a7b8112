// What nearly all fuzz targets include; it is parsed once.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "async/async.h"
#include "block/context.h"
#include "block/driver.h"
