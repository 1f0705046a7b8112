// src/async: coroutines and the threads that run them: Task, Worker (an I/O engine and a ready
// queue for a thread), Runtime (the workers and the pool), TaskGroup, the locks that may be held
// over a co_await, timers, cancellation, and the two I/O engines. May include src/base and
// liburing; knows nothing of images. src/async/README.md lists the hazards of coroutines and the
// house cures.
#pragma once

#include "async/cancel.h"
#include "async/finally.h"
#include "async/io.h"
#include "async/runtime.h"
#include "async/sync.h"
#include "async/task.h"
#include "async/task_group.h"
#include "async/thread.h"
#include "async/write_turns.h"
