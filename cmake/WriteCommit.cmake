# Writes OUT, a header that names the commit of SOURCE_DIR: COMMIT where that is given, else what
# git says ("-dirty" after it where files differ), else "unknown". While that stays the same it is
# left alone.
cmake_minimum_required(VERSION 3.25)
if(NOT COMMIT OR COMMIT STREQUAL "unknown")
  set(COMMIT unknown)
  find_program(GIT git)
  if(GIT AND EXISTS ${SOURCE_DIR}/.git)
    # Without optional locks, so that it is in nobody's way.
    execute_process(
      COMMAND ${GIT} --no-optional-locks describe --always --dirty --abbrev=12 --exclude=*
      WORKING_DIRECTORY ${SOURCE_DIR} OUTPUT_VARIABLE found RESULT_VARIABLE result
      OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(result EQUAL 0)
      set(COMMIT ${found})
    endif()
  endif()
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define TANDEM_COMMIT \"@COMMIT@\"\n" @ONLY)
