# Which sources belong to which system: the name of a folder in the path of a source says so, in every room. What is in
# none of these folders is compiled everywhere.
#   linux/      Linux alone
#   macos/      macOS alone
#   windows/    Windows alone
#   posix/      Linux and macOS
#   elsewhere/  every system but Linux: what answers there for a source in linux/
if(CMAKE_SYSTEM_NAME STREQUAL "Windows")
  set(foreign_folders linux|macos|posix)
elseif(CMAKE_SYSTEM_NAME STREQUAL "Darwin")
  set(foreign_folders linux|windows)
else()
  set(foreign_folders macos|windows|elsewhere)
endif()

# Takes what is for other systems out of the list of sources that VARIABLE names.
function(cairn_leave_foreign variable)
  set(sources ${${variable}})
  list(FILTER sources EXCLUDE REGEX "/src/(.*/)?(${foreign_folders})/")
  set(${variable} ${sources} PARENT_SCOPE)
endfunction()
