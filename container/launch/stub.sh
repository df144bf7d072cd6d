#!/bin/sh
# What MMS starts instead of a Python interpreter, standalone, for its one model. It stands for a worker process in
# MMS's books and costs 120 KB: it asks the supervisor to listen for MMS's connections and then only passes on what the
# supervisor says. It lives as long as both MMS and the supervisor want the model: MMS kills it, or the supervisor closes
# the reply.
PATH=/usr/bin:/bin # whatever MMS's own is
case "$1" in
  */metric_collector.py) exit 0 ;; # MMS's host metrics, which nobody reads
esac
while [ $# -gt 1 ]; do
  case "$1" in
    --sock-name) sock=$2 ;;
    --tmp-dir) tmp=$2 ;;
  esac
  shift
done
cd "$tmp" || exit 1
reply="reply.$$"
mkfifo -m 600 "$reply" || exit 1
exec 3<>"$reply" 4<"$reply" # read and write at once: opening waits for nobody, and no reply can be missed
echo "${sock##*/} $reply" >control # less than PIPE_BUF, so whole
IFS= read -r line <&4 || exit 1
rm -f "$reply"
exec 3>&- # from here on the supervisor is the only writer: when it closes or dies, cat ends
printf '%s\n' "$line"
exec cat <&4
