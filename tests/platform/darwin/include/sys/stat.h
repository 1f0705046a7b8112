#pragma once
#include_next <sys/stat.h>
#undef st_mtim
#undef st_ctim
#define st_mtimespec st_mtim
#define st_ctimespec st_ctim

extern "C" int darwin_stat(const char* path, struct stat* found);
#define stat(path, found) darwin_stat(path, found)
