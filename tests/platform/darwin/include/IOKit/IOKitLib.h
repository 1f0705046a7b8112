#pragma once
#include <CoreFoundation/CoreFoundation.h>

using kern_return_t = int;
using mach_port_t = unsigned;
using io_object_t = mach_port_t;
using io_iterator_t = io_object_t;
#define KERN_SUCCESS 0
extern "C" CFMutableDictionaryRef IOServiceMatching(const char* name);
extern "C" kern_return_t IOServiceGetMatchingServices(mach_port_t port, CFDictionaryRef matching,
                                                      io_iterator_t* found);
extern "C" io_object_t IOIteratorNext(io_iterator_t iterator);
extern "C" kern_return_t IOObjectRelease(io_object_t object);
extern "C" CFTypeRef IORegistryEntryCreateCFProperty(io_object_t entry, CFStringRef key,
                                                     CFAllocatorRef allocator, unsigned options);
