#pragma once
#include <locale.h>
#include <wctype.h>
