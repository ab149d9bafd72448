#!/usr/bin/env bash
# Builds and runs every test and check of the firmware that needs no board: about a minute.
#   firmware/test/run.sh [BUILD_DIRECTORY]      (default: firmware/build/test, which git ignores)
# Programs that are missing are named with the package (Debian 12) that has them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

build="$(realpath -m "${1:-../build/test}")"
log="$build/run.log"
jobs="$(nproc)"
mkdir -p "$build"

missing=()
has() { command -v "$1" >/dev/null || missing+=("$2"); }             # has PROGRAM PACKAGE
header() { echo "#include <$1>" | gcc -E -include stdarg.h -include stddef.h -include stdint.h \
  -include setjmp.h - >/dev/null 2>&1 || missing+=("$2"); }            # header FILE PACKAGE
runtime() { [ -e "$("$1" --print-file-name="$2" 2>/dev/null)" ] || missing+=("$3"); }

has make make
has gcc gcc
has clang-19 clang-19
has clang-tidy-19 clang-tidy-19
has cppcheck cppcheck
has riscv64-unknown-elf-gcc gcc-riscv64-unknown-elf
has qemu-system-riscv32 qemu-system-misc
has python3 python3
if [ ${#missing[@]} -eq 0 ]; then
  header libwebsockets.h "libwebsockets-dev libcap-dev"
  header cmocka.h libcmocka-dev
  clang_library="$(dirname "$(clang-19 --print-libgcc-file-name --rtlib=compiler-rt)")"
  compgen -G "$clang_library/libclang_rt.fuzzer*.a" >/dev/null || missing+=(libclang-rt-19-dev)
  runtime riscv64-unknown-elf-gcc picolibc.specs picolibc-riscv64-unknown-elf
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "firmware/test/run.sh: missing; run: apt-get install ${missing[*]}" >&2
  exit 1
fi

# step TITLE TARGET...: makes the targets; what they say is shown only where something fails.
step() {
  local title="$1" began=$SECONDS
  shift
  if ! make -s -j "$jobs" BUILD="$build" "$@" >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "firmware: $title failed (make -C firmware/test $*)" >&2
    exit 1
  fi
  { grep -E '^(size|alloc|rv32):|PASSED|number_of_executed' "$log" || true; } | sed 's/^/  /'
  echo "firmware: $title: $((SECONDS - began)) s"
}

step "unit tests, gcc, ASan and UBSan" unit-gcc
step "unit tests, clang, ASan and UBSan" unit-clang
step "memory and stack on RV32" alloc size
step "a conversation on RV32" rv32
step "virtual device" host tsan
step "static analysis" cppcheck tidy
step "fuzzing" fuzz
echo "firmware: all in $SECONDS s"
