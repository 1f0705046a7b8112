#pragma once
#include_next <errno.h>
#undef ENOMEDIUM
#undef EREMOTEIO
