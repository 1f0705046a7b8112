#pragma once
#include <stdint.h>

struct __CFString;
struct __CFDictionary;
struct __CFAllocator;
using CFTypeRef = const void*;
using CFStringRef = const __CFString*;
using CFDictionaryRef = const __CFDictionary*;
using CFMutableDictionaryRef = __CFDictionary*;
using CFAllocatorRef = const __CFAllocator*;
using CFIndex = long;
using CFTypeID = unsigned long;
using Boolean = unsigned char;
#define kCFAllocatorDefault nullptr
#define kCFStringEncodingUTF8 0x08000100
#define CFSTR(text) reinterpret_cast<CFStringRef>(text)
extern "C" CFTypeID CFGetTypeID(CFTypeRef value);
extern "C" CFTypeID CFStringGetTypeID();
extern "C" Boolean CFStringGetCString(CFStringRef text, char* bytes, CFIndex room,
                                      uint32_t encoding);
extern "C" void CFRelease(CFTypeRef value);
