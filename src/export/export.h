// src/export: what others connect to: the NBD server. An export hands the content of a Node out; it
// may include block, net and below, and knows neither formats nor tools.
#pragma once

#include "export/nbd/server.h"
