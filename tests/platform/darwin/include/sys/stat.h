#pragma once
#include_next <sys/stat.h>
#undef st_mtim
#define st_mtimespec st_mtim
