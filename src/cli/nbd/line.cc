#include "cli/nbd/line.h"

#include <getopt.h>

#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cli/trace.h"
#include "operation/nbd_client.h"
#include "operation/snapshot.h"
#include "platform/directory.h"

namespace cairn::cli {
namespace {

enum Long : int {
  kCache = 256,
  kAio,
  kDiscard,
  kDetectZeroes,
  kHandshakeLimit,
  kObjectOption,
  kTlsCreds,
  kTlsAuthz,
  kTlsHostname,
  kFork,
  kPidFile,
  kImageOptsOption,
  kSelinuxLabel,
};

const option kLongOptions[] = {
    {"help", no_argument, nullptr, 'h'},
    {"version", no_argument, nullptr, 'V'},
    {"port", required_argument, nullptr, 'p'},
    {"bind", required_argument, nullptr, 'b'},
    {"socket", required_argument, nullptr, 'k'},
    {"offset", required_argument, nullptr, 'o'},
    {"read-only", no_argument, nullptr, 'r'},
    {"allocation-depth", no_argument, nullptr, 'A'},
    {"bitmap", required_argument, nullptr, 'B'},
    {"connect", required_argument, nullptr, 'c'},
    {"disconnect", no_argument, nullptr, 'd'},
    {"list", no_argument, nullptr, 'L'},
    {"snapshot", no_argument, nullptr, 's'},
    {"load-snapshot", required_argument, nullptr, 'l'},
    {"nocache", no_argument, nullptr, 'n'},
    {"cache", required_argument, nullptr, kCache},
    {"aio", required_argument, nullptr, kAio},
    {"discard", required_argument, nullptr, kDiscard},
    {"detect-zeroes", required_argument, nullptr, kDetectZeroes},
    {"shared", required_argument, nullptr, 'e'},
    {"format", required_argument, nullptr, 'f'},
    {"persistent", no_argument, nullptr, 't'},
    {"verbose", no_argument, nullptr, 'v'},
    {"object", required_argument, nullptr, kObjectOption},
    {"export-name", required_argument, nullptr, 'x'},
    {"description", required_argument, nullptr, 'D'},
    {"handshake-limit", required_argument, nullptr, kHandshakeLimit},
    {"tls-creds", required_argument, nullptr, kTlsCreds},
    {"tls-hostname", required_argument, nullptr, kTlsHostname},
    {"tls-authz", required_argument, nullptr, kTlsAuthz},
    {"image-opts", no_argument, nullptr, kImageOptsOption},
    {"trace", required_argument, nullptr, 'T'},
    {"fork", no_argument, nullptr, kFork},
    {"pid-file", required_argument, nullptr, kPidFile},
    {"selinux-label", required_argument, nullptr, kSelinuxLabel},
    {nullptr, 0, nullptr, 0},
};

uint64_t plain_number(const Session& session, const char* text, const std::string& complaint,
                      uint64_t most) {
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text, &end, 0);
  if (*text == 0 || *end != 0 || errno != 0 || std::strchr(text, '-') != nullptr || value > most)
    fail(session, complaint + " '" + text + "'");
  return value;
}

void print_help(const Session& session) {
  print("Usage: " + session.program + (session.manners.tool.empty() ? " nbd" : "") +
        " [OPTIONS] FILE\n"
        "  or:  " +
        session.program + (session.manners.tool.empty() ? " nbd" : "") +
        " -L [OPTIONS]\n"
        "QEMU Disk Network Block Device Utility\n\n"
        "  -h, --help                display this help and exit\n"
        "  -V, --version             output version information and exit\n\n"
        "Connection properties:\n"
        "  -p, --port=PORT           port to listen on (default `10809')\n"
        "  -b, --bind=IFACE          interface to bind to (default `0.0.0.0')\n"
        "  -k, --socket=PATH         path to the unix socket\n"
        "  -e, --shared=NUM          device can be shared by NUM clients (default '1', 0: any)\n"
        "  -t, --persistent          don't exit on the last connection\n"
        "  -v, --verbose             stay in the foreground with -c, say what clients do wrong\n"
        "  -x, --export-name=NAME    expose export by name (default is empty string)\n"
        "  -D, --description=TEXT    export a human-readable description\n"
        "      --handshake-limit=N   seconds for a client's handshake (default 10, 0: any)\n\n"
        "Exposing part of the image:\n"
        "  -o, --offset=OFFSET       offset into the image\n"
        "  -A, --allocation-depth    expose the allocation depth\n"
        "  -B, --bitmap=NAME         expose a persistent dirty bitmap\n\n"
        "General purpose options:\n"
        "  -L, --list                list exports available from another NBD server\n"
        "      --object TYPE,id=ID,… define an object such as 'secret' or 'tls-creds-x509'\n"
        "      --tls-creds=ID        use id of an earlier --object to provide TLS\n"
        "      --tls-authz=ID        use id of an earlier --object to provide authorization\n"
        "      --tls-hostname=NAME   the name that the server's certificate must have (-L)\n"
        "  -T, --trace [[enable=]PATTERN][,events=FILE][,file=FILE]  accepted\n"
        "      --fork                fork off the server process and exit the parent\n"
        "                            once the server is running\n"
        "      --pid-file=PATH       store the server's process ID in the given file\n"
        "      --selinux-label=LABEL set SELinux process label on listening socket\n\n"
        "Kernel NBD client support:\n"
        "  -c, --connect=DEV         connect FILE to the local NBD device DEV\n"
        "  -d, --disconnect          disconnect the specified device\n\n"
        "Block device options:\n"
        "  -f, --format=FORMAT       set image format (raw, qcow2, ...)\n"
        "  -r, --read-only           export read-only\n"
        "  -s, --snapshot            use FILE as an external snapshot, create a temporary\n"
        "                            file with backing_file=FILE, redirect the write to\n"
        "                            the temporary one\n"
        "  -l, --load-snapshot=SNAPSHOT_PARAM\n"
        "                            load an internal snapshot inside FILE and export it\n"
        "                            as an read-only device, SNAPSHOT_PARAM format is\n"
        "                            'snapshot.id=[ID],snapshot.name=[NAME]', or '[ID_OR_NAME]'\n"
        "  -n, --nocache             disable host cache\n"
        "      --cache=MODE          set cache mode used to access the disk image, the\n"
        "                            valid options are: 'none', 'writeback' (default),\n"
        "                            'writethrough', 'directsync' and 'unsafe'\n"
        "      --aio=MODE            set AIO mode (native, io_uring or threads)\n"
        "      --discard=MODE        set discard mode (ignore, unmap)\n"
        "      --detect-zeroes=MODE  set detect-zeroes mode (off, on, unmap)\n"
        "      --image-opts          treat FILE as a full set of image options\n");
  finish_output();
}

void take_detect_zeroes(const Session& session, NbdLine& line, const std::string& mode) {
  if (mode != "off" && mode != "on" && mode != "unmap")
    fail(session, "Failed to parse detect_zeroes mode: invalid parameter value: " + mode);
  if (mode == "unmap" && !line.discard_unmap)
    fail(session,
         "setting detect-zeroes to unmap is not allowed without setting discard operation to "
         "unmap");
  line.detect_zeroes = mode;
}

void take_cache(const Session& session, NbdLine& line, const char* mode) {
  if (line.cache_seen) fail(session, "-n and --cache can only be specified once");
  line.cache_seen = true;
  const auto parsed = CacheMode::parse(mode);
  if (!parsed) fail(session, std::string("Invalid cache mode `") + mode + "'");
  line.cache = *parsed;
}

void take_long(Session& session, NbdLine& line, int id, const char* value) {
  const std::string text = value != nullptr ? value : "";
  switch (id) {
    case kCache:
      take_cache(session, line, value);
      break;
    case kAio:
      if (line.aio_seen) fail(session, "--aio can only be specified once");
      line.aio_seen = true;
      if (text != "native" && text != "threads" && text != "io_uring")
        fail(session, "Invalid aio mode '" + text + "'");
      line.native_aio = text == "native";
      break;
    case kDiscard:
      if (line.discard_seen) fail(session, "--discard can only be specified once");
      line.discard_seen = true;
      if (text != "ignore" && text != "off" && text != "unmap" && text != "on")
        fail(session, "Invalid discard mode `" + text + "'");
      line.discard_unmap = text == "unmap" || text == "on";
      break;
    case kDetectZeroes:
      take_detect_zeroes(session, line, text);
      break;
    case kHandshakeLimit:
      line.handshake_limit = static_cast<unsigned>(
          plain_number(session, value, "Invalid handshake limit", UINT32_MAX));
      break;
    case kObjectOption:
      if (add_objects(session, {text})) throw Exit{0};
      break;
    case kTlsCreds:
      line.tls_creds = text;
      break;
    case kTlsAuthz:
      line.tls_authz = text;
      break;
    case kTlsHostname:
      line.tls_hostname = text;
      break;
    case kFork:
      line.fork = true;
      break;
    case kPidFile:
      line.pid_file = text;
      break;
    case kImageOptsOption:
      line.image_opts = true;
      break;
    case kSelinuxLabel:
      line.selinux_label = text;
      break;
    default:
      break;
  }
}

// A negative number is refused with the image, as the reference does.
uint64_t offset_of(const Session& session, const char* text) {
  const bool negative = text[0] == '-' && std::isdigit(static_cast<unsigned char>(text[1]));
  if (!negative) return plain_number(session, text, "Invalid offset", UINT64_MAX);
  const uint64_t size = plain_number(session, text + 1, "Invalid offset", UINT64_MAX);
  return uint64_t{0} - size;
}

void take_snapshot(const Session& session, NbdLine& line, const std::string& parameter) {
  try {
    operation::check_snapshot_parameter(parameter);
  } catch (const Error& error) {
    session.error(error);
    fail(session, "Failed in parsing snapshot param `" + parameter + "'");
  }
  line.image.load_snapshot = parameter;
  line.read_only = true;
}

void take_short(const Session& session, NbdLine& line, int id, const char* value) {
  const std::string text = value != nullptr ? value : "";
  switch (id) {
    case 's':
      line.image.snapshot = true;
      break;
    case 'n':
      take_cache(session, line, "none");
      break;
    case 'b':
      line.bind = text;
      break;
    case 'p':
      line.port = text;
      break;
    case 'o':
      line.image.offset = offset_of(session, value);
      break;
    case 'l':
      take_snapshot(session, line, text);
      break;
    case 'r':
      line.read_only = true;
      break;
    case 'A':
      line.image.allocation_depth = true;
      break;
    case 'B':
      line.image.bitmaps.push_back(text);
      break;
    case 'k':
      if (!platform::is_absolute(text)) fail(session, "socket path must be absolute");
      line.socket = text;
      break;
    case 'd':
      line.disconnect = true;
      break;
    case 'c':
      line.connect = text;
      break;
    case 'e':
      line.shared = static_cast<unsigned>(
          plain_number(session, value, "Invalid shared device number", INT32_MAX));
      break;
    case 'f':
      line.format = text;
      break;
    case 't':
      line.persistent = true;
      break;
    case 'x':
      if (text.size() > nbd::kMaxString) fail(session, "export name '" + text + "' too long");
      line.image.name = text;
      line.name_seen = true;
      break;
    case 'D':
      if (text.size() > nbd::kMaxString)
        fail(session, "export description '" + text + "' too long");
      line.image.description = text;
      break;
    case 'v':
      line.verbose = true;
      break;
    case 'L':
      line.list = true;
      break;
    case 'T':
      if (const auto code = take_trace(session, text)) throw Exit{*code};
      break;
    default:
      break;
  }
}

}  // namespace

bool parse_nbd_line(Session& session, NbdLine& line, int argc, char** argv) {
  std::vector<char*> words(argv, argv + argc);
  std::string name = session.manners.tool.empty() ? session.program + " nbd" : session.program;
  words[0] = name.data();
  words.push_back(nullptr);
  optind = 0;
  opterr = 1;
  while (true) {
    const int got = getopt_long(argc, words.data(), "hVb:o:p:rsnc:dvk:e:f:tl:x:T:D:AB:L",
                                kLongOptions, nullptr);
    if (got == -1) break;
    if (got == '?') fail(session, "Try `" + name + " --help' for more information.");
    if (got == 'h') {
      print_help(session);
      return false;
    }
    if (got == 'V') {
      print(version_text(session));
      finish_output();
      return false;
    }
    if (got >= 256)
      take_long(session, line, got, optarg);
    else
      take_short(session, line, got, optarg);
  }
  for (int i = optind; i < argc; ++i) line.files.emplace_back(words[static_cast<size_t>(i)]);
  if (line.files.size() != (line.list ? 0u : 1u)) {
    if (line.list) fail(session, "List mode is incompatible with a file name");
    session.error("Invalid number of arguments");
    std::fprintf(stderr, "Try `%s --help' for more information.\n", name.c_str());
    throw Exit{1};
  }
  return true;
}

void check_port(const std::string& port) {
  const bool number = port.find_first_not_of("0123456789") == std::string::npos;
  if (!number || port.empty()) return;
  const size_t zeroes = std::min(port.find_first_not_of('0'), port.size() - 1);
  if (port.size() - zeroes > 5 || std::stoul(port.substr(zeroes)) > UINT16_MAX)
    throw UsageError{"'" + port + "' is no TCP port: those are 0 to 65535"};
}

}  // namespace cairn::cli
