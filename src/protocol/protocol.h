// src/protocol: nodes that reach bytes somewhere, one directory each. May include src/block and
// below; one protocol knows nothing of another. What they share is here: drivers of servers
// (server_driver, driver_options, uri_text), connections that we speak ourselves
// (pipelined_connection, repaired_link, worker_links), and libraries with threads of their own
// (library_thread, file_session, file_session_node, session_pool). web is no protocol: it has what
// http and s3 share.
#pragma once

#include "block/block.h"
