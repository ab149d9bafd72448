#!/bin/sh
# check_alloc.sh NM OBJECT...: fails when the core calls for memory, for a file, or for anything
# else that is not in the list of what every C library for a chip has.
set -eu
nm="$1"
shift
allowed='memcpy|memset|memmove|memcmp|memchr|strlen|strcmp|strcpy|strncpy|strchr'
# What a compiler calls where the chip has no instruction for it.
allowed="$allowed|__(u|)(div|mod)di3|__muldi3|__(ashl|lshr|ashr)di3|__atomic_(load|store)_4"
defined=$("$nm" --defined-only "$@" | awk 'NF == 3 {print $3}' | sort -u)
asked=$("$nm" --undefined-only "$@" | awk '$1 == "U" {print $2}' | sort -u)
foreign=$(printf '%s\n' "$asked" | grep -vxF "$defined" | grep -vxE "$allowed" || true)
if [ -n "$foreign" ]; then
    echo "The core must not call: $foreign" >&2
    exit 1
fi
echo "alloc: the core calls nothing but memory and string functions"
