#pragma once
#include <stdint.h>

#define PROC_ALL_PIDS 1
extern "C" int proc_listpidspath(uint32_t type, uint32_t detail, const char* path, uint32_t flags,
                                 void* buffer, int room);
extern "C" int proc_name(int pid, void* buffer, uint32_t room);
