#!/usr/bin/env bash
# Compiles main/ against idf_stubs/ for both chips and every option that changes the code, with gcc,
# clang-tidy and cppcheck, and runs what of it can run here: the loudspeaker and the
# echo canceller's reference on a simulated DMA, the socket with threads and a simulated client, the
# button on a simulated pin, and what an app may send while provisioning.
#
# What this cannot see: whether the stubs are true to ESP-IDF (each names the header it stands for),
# and anything that happens on a board.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/glue
# A pin is a number of menuconfig; the stubs' enum does not list them all.
tidy=(clang-tidy-19 --quiet --config-file=test/clang-tidy.yaml
      --checks=-clang-analyzer-optin.core.EnumCastOutOfRange)

declare -A missing=([gcc]=gcc [cppcheck]=cppcheck [clang-tidy-19]=clang-tidy-19)
for tool in "${!missing[@]}"; do
    command -v "$tool" >/dev/null ||
        { echo "glue.sh: apt-get install ${missing[$tool]}" >&2; exit 1; }
done

include=(-Itest/idf_stubs -Imain -Icomponents/listenai_core/include)
warnings=(-std=gnu17 -Wall -Wextra -Wconversion -Wno-sign-conversion -Wshadow -Werror)

always=(main button led ledger microphone power provision socket speaker store wifi)
base=(-DCONFIG_LISTENAI_LOCAL_BARGE_IN=1)
stream=(-DCONFIG_LISTENAI_DIALECT_LISTENAI=1 -DCONFIG_LISTENAI_LISTEN_ALWAYS=1)
push=(-DCONFIG_LISTENAI_DIALECT_LISTENAI=1 -DCONFIG_LISTENAI_LISTEN_PUSH_TO_TALK=1
      -DCONFIG_LISTENAI_LIGHT_SLEEP=1)
hotpin=(-DCONFIG_LISTENAI_DIALECT_HOTPIN=1 -DCONFIG_LISTENAI_LISTEN_PUSH_TO_TALK=1
        '-DCONFIG_LISTENAI_LED=(-1)' '-DCONFIG_LISTENAI_WIFI_SSID="home"'
        '-DCONFIG_LISTENAI_WIFI_PASSWORD="secret"')
ota=(-DCONFIG_LISTENAI_OTA=1)
played=(-DCONFIG_LISTENAI_AFE=1 -DCONFIG_LISTENAI_AFE_REFERENCE_PLAYED=1)
wake=(-DCONFIG_LISTENAI_AFE=1 -DCONFIG_LISTENAI_AFE_REFERENCE_RIGHT_SLOT=1
      -DCONFIG_LISTENAI_DIALECT_LISTENAI=1 -DCONFIG_LISTENAI_LISTEN_WAKE_WORD=1)

# check NAME CHIP DEPTH FLAGS...: with a depth of "deep" by clang-tidy and cppcheck too
check() {
    local name=$1 chip=$2 depth=$3 files=("${always[@]}") sources=()
    shift 3
    local flags=("-DCONFIG_IDF_TARGET_$chip=1" "$@")
    [[ " $* " == *CONFIG_LISTENAI_AFE=1* ]] && files+=(afe)
    [[ " $* " == *CONFIG_LISTENAI_OTA=1* ]] && files+=(ota)
    for file in "${files[@]}"; do
        sources+=("main/$file.c")
        gcc "${warnings[@]}" "${include[@]}" "${flags[@]}" -O2 -c "main/$file.c" \
            -o "$build/$file.o"
    done
    if [[ $depth == deep ]]; then
        "${tidy[@]}" "${sources[@]}" -- -std=gnu17 "${include[@]}" "${flags[@]}" 2>&1 |
            { grep -vE ' warnings? generated|Processing file' || true; }
        cppcheck --quiet --std=c11 --enable=warning,portability,performance --error-exitcode=1 \
            --inline-suppr --suppress=missingIncludeSystem "${include[@]}" "${flags[@]}" \
            "${sources[@]}"
    fi
    echo "glue: $name: ${#files[@]} files"
}

# The options that the code asks about, and those that menuconfig offers, are the same.
compare_options() {
    grep -ohE 'CONFIG_LISTENAI_[A-Z0-9_]+' main/*.[ch] main/CMakeLists.txt | sort -u \
        >"$build/asked"
    sed -nE 's/^ *(config|choice) (LISTENAI_[A-Z0-9_]+)$/CONFIG_\2/p' main/Kconfig.projbuild |
        sort -u >"$build/offered"
    local unknown
    unknown=$(comm -23 "$build/asked" "$build/offered")
    [[ -z $unknown ]] || { echo "glue.sh: not in Kconfig.projbuild: $unknown" >&2; exit 1; }
}

# Every source is built by CMakeLists.txt, and checked here.
compare_sources() {
    local file
    for file in main/*.c; do
        grep -qw "$(basename "$file")" main/CMakeLists.txt ||
            { echo "glue.sh: $file is not in main/CMakeLists.txt" >&2; exit 1; }
        [[ " ${always[*]} afe ota " == *" $(basename "$file" .c) "* ]] ||
            { echo "glue.sh: $file is not checked" >&2; exit 1; }
    done
}

# run NAME SANITIZERS SOURCES...: a test that is a program, and what it may take at most
run() {
    local name=$1 sanitizers=$2
    shift 2
    gcc "${warnings[@]}" "${include[@]}" -DCONFIG_IDF_TARGET_ESP32S3=1 -O1 -g \
        "-fsanitize=$sanitizers" -fno-sanitize-recover=all "$@" -o "$build/$name" -lpthread
    timeout 60 "$build/$name"
}

mkdir -p "$build"
compare_options
compare_sources
check "ESP32, listens always" ESP32 deep "${base[@]}" "${stream[@]}"
check "ESP32, push to talk, light sleep" ESP32 quick "${base[@]}" "${push[@]}"
check "ESP32, Hotpin, network of menuconfig, no LED" ESP32 deep "${hotpin[@]}"
check "ESP32-S3, listens always" ESP32S3 quick "${base[@]}" "${stream[@]}"
check "ESP32-S3, push to talk, update" ESP32S3 quick "${base[@]}" "${push[@]}" "${ota[@]}"
check "ESP32-S3, front end, update" ESP32S3 deep "${base[@]}" "${stream[@]}" "${played[@]}" \
    "${ota[@]}"
check "ESP32-S3, wake word" ESP32S3 deep "${base[@]}" "${wake[@]}"
run speaker address,undefined test/glue_speaker.c test/glue_dma.c main/speaker.c main/ledger.c
run reference address,undefined -DCONFIG_LISTENAI_AFE_REFERENCE_PLAYED=1 test/glue_reference.c \
    test/glue_dma.c main/speaker.c main/ledger.c
run socket thread test/glue_socket.c main/socket.c components/listenai_core/src/la_mailbox.c
run button address,undefined "${push[@]}" test/glue_button.c main/main.c main/button.c \
    main/power.c components/listenai_core/src/*.c
run provision address,undefined test/glue_provision.c main/provision.c main/store.c
