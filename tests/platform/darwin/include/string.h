#pragma once
#include_next <string.h>

extern "C" int memset_s(void* bytes, size_t room, int value, size_t count);
