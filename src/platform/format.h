#pragma once

// Marks a function that takes a format of printf() as its argument FORMAT, and what it formats from
// FIRST on.
#ifdef _WIN32
#define CAIRN_PRINTF(FORMAT, FIRST) __attribute__((format(gnu_printf, FORMAT, FIRST)))
#else
#define CAIRN_PRINTF(FORMAT, FIRST) __attribute__((format(printf, FORMAT, FIRST)))
#endif
