#pragma once
#include_next <stdio.h>

#define RENAME_EXCL 4
extern "C" int renameatx_np(int from_folder, const char* from, int to_folder, const char* to,
                            unsigned flags);
