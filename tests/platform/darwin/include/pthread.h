#pragma once
#include_next <pthread.h>

// Of the calling thread.
int pthread_setname_np(const char* name);
